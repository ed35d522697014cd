-- Alerts: what somebody should know of, and what was told of it. A row is made when a trouble is seen and closed when it
-- is over, so each change is told once, whoever looks at once or after a restart.

CREATE TYPE alert_kind AS ENUM (
    'token_out_of_use',
    'no_token_left',
    'budget_reached',
    'promise_broken',  -- tweets of tracked accounts are stored late, or accounts are not looked at
    'account_gone',    -- a tracked account cannot be read any more
    'run_failed'
);

CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind alert_kind NOT NULL,
    subject text NOT NULL,       -- whom it concerns, such as a token by its name; a user by its id
    called text NOT NULL,        -- the same for a person
    since timestamptz NOT NULL,
    message text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    told_at timestamptz,         -- null: still to be posted
    cleared_at timestamptz,      -- null: it lasts
    end_message text,            -- null also when its end is nothing to tell: it was an event, or something else followed
    end_told_at timestamptz,
    telling_until timestamptz,   -- so long a process has to post it before another one does

    CONSTRAINT alerts_pkey PRIMARY KEY (id),
    CONSTRAINT alert_is_made_once UNIQUE (kind, subject, since),
    CONSTRAINT alert_end_is_told_after_it_ends CHECK (end_message IS NULL OR cleared_at IS NOT NULL),
    CONSTRAINT alert_end_told_was_to_be_told CHECK (end_told_at IS NULL OR end_message IS NOT NULL)
);

CREATE UNIQUE INDEX alert_is_open_once ON alerts (kind, subject) WHERE cleared_at IS NULL;

-- Most accounts can be read, and a look for those that cannot is taken every half minute.
CREATE INDEX users_unavailable ON users (id) WHERE availability <> 'active';
