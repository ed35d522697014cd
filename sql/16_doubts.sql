-- Intervals where X's responses have not proved that every tweet is stored. Each stays a hole, with its cause, until a
-- later response shows the same; until then it is requested at growing intervals. Written in the transaction of the page
-- that leaves or settles it.

ALTER TYPE hole_cause ADD VALUE IF NOT EXISTS 'unconfirmed';  -- X showed an end, or a strange author, only once so far
ALTER TYPE hole_cause ADD VALUE IF NOT EXISTS 'unreadable';   -- an item of a response could not be read

CREATE TYPE doubt_kind AS ENUM (
    'end',         -- a page without a next_token, and nothing else that says that there is nothing below
    'unreadable',  -- an item between two tweets that is no tweet, or has no id
    'foreign'      -- a tweet of another author in its place
);

CREATE TABLE doubts (
    id bigint GENERATED ALWAYS AS IDENTITY,
    user_id bigint NOT NULL,
    kind doubt_kind NOT NULL,
    ids int8range NOT NULL,
    first_seen_at timestamptz NOT NULL,  -- X's clock, as of all times here
    seen_at timestamptz NOT NULL,
    next_at timestamptz NOT NULL,        -- monitoring does not request it before
    times integer NOT NULL DEFAULT 1,    -- responses that showed it; several at once count as one
    items text[] NOT NULL DEFAULT '{}',  -- what could not be read, as it came
    recorded_at timestamptz,             -- when it came back unreadable: it is no hole any more
    recorded_by text,                    -- the version of this program that could not read it; a later one tries again

    CONSTRAINT doubts_pkey PRIMARY KEY (id),
    CONSTRAINT doubt_belongs_to_an_account FOREIGN KEY (user_id) REFERENCES user_state (user_id) ON DELETE CASCADE,
    CONSTRAINT doubt_is_of_some_ids CHECK (NOT isempty(ids) AND NOT lower_inf(ids) AND NOT upper_inf(ids)),
    CONSTRAINT doubt_that_is_recorded_is_unreadable CHECK (recorded_at IS NULL OR kind = 'unreadable'),
    CONSTRAINT doubt_is_recorded_by_a_version CHECK ((recorded_at IS NULL) = (recorded_by IS NULL))
);

CREATE INDEX doubts_user ON doubts (user_id);

-- Versions before this one claimed more than responses proved. Accounts that they have written to are listed by
-- `db claims` until their claims are checked.
ALTER TABLE user_state ADD COLUMN claims_checked boolean NOT NULL DEFAULT true;
UPDATE user_state SET claims_checked = false WHERE covered <> '{}' OR searched <> '{}';

-- When the timeline itself was last read. A search that shows nothing new only says where to look: the next one looks back
-- to this time again, so that what one response left out is found by a later one.
ALTER TABLE user_state ADD COLUMN IF NOT EXISTS timeline_read_at timestamptz;
