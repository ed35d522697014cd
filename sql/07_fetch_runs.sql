-- Runs, and what became of each account in each run. Counts are kept while the run works, so that one that is killed
-- shows what it had achieved.

CREATE TABLE fetch_runs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    dagster_run_id text,
    kind fetch_kind NOT NULL,
    status run_status NOT NULL DEFAULT 'running',
    request json NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    waiting_for text,            -- while it waits: for which endpoint's budget
    waiting_until timestamptz,
    accounts integer NOT NULL DEFAULT 0,
    calls integer NOT NULL DEFAULT 0,
    tweets_fetched bigint NOT NULL DEFAULT 0,
    tweets_new bigint NOT NULL DEFAULT 0,
    billed_posts bigint NOT NULL DEFAULT 0,
    billed_users bigint NOT NULL DEFAULT 0,
    cost_usd numeric(12, 3) NOT NULL DEFAULT 0,
    waited_s double precision NOT NULL DEFAULT 0,
    error text,

    CONSTRAINT fetch_runs_pkey PRIMARY KEY (id),
    CONSTRAINT fetch_run_dagster_run_is_unique UNIQUE (dagster_run_id),
    CONSTRAINT fetch_run_is_finished_or_running CHECK ((status = 'running') = (finished_at IS NULL)),
    CONSTRAINT fetch_run_finishes_after_it_starts CHECK (finished_at >= started_at)
);

CREATE INDEX fetch_runs_running ON fetch_runs (heartbeat_at) WHERE status = 'running';

CREATE TABLE fetch_run_accounts (
    fetch_run_id bigint NOT NULL,
    username text NOT NULL,  -- as asked for, in lower case
    user_id bigint,
    fetch_mode text NOT NULL,
    track_after boolean NOT NULL DEFAULT false,
    outcome account_outcome NOT NULL DEFAULT 'pending',
    reason text,
    started_at timestamptz,
    finished_at timestamptz,
    calls integer NOT NULL DEFAULT 0,
    tweets_fetched integer NOT NULL DEFAULT 0,
    tweets_new integer NOT NULL DEFAULT 0,
    tweets_stored bigint,
    billed_posts integer NOT NULL DEFAULT 0,
    waited_s double precision NOT NULL DEFAULT 0,

    CONSTRAINT fetch_run_accounts_pkey PRIMARY KEY (fetch_run_id, username),
    CONSTRAINT fetch_run_account_belongs_to_a_run
        FOREIGN KEY (fetch_run_id) REFERENCES fetch_runs (id) ON DELETE CASCADE,
    CONSTRAINT fetch_run_account_that_failed_has_a_reason
        CHECK (outcome IN ('pending', 'done') OR reason IS NOT NULL)
)
-- The counts of an account are updated with each of its pages.
WITH (fillfactor = 70);

CREATE INDEX fetch_run_accounts_user ON fetch_run_accounts (user_id);
