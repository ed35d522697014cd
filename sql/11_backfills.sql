-- Backfills: what the archive search has filled, why a hole is still there, and tweets that were brought in from files.

-- A run that wrote tweets from files instead of calling X.
ALTER TYPE fetch_kind ADD VALUE IF NOT EXISTS 'import';

-- Why tweets of an account are missing; the last four are what a run has met.
CREATE TYPE hole_cause AS ENUM (
    'not_asked',     -- no run has asked for it
    'beyond_reach',  -- the timeline does not go so far down; the archive search does
    'capped',        -- no token could go on
    'interrupted',   -- the run was stopped or killed
    'protected',     -- the account could not be read then: protected or suspended
    'fault'          -- the API or the database failed
);

ALTER TABLE user_state
    -- The ids of which all is stored that the archive search shows. It may leave out retweets, so this is not `covered`.
    ADD COLUMN searched int8multirange NOT NULL DEFAULT '{}',
    ADD CONSTRAINT user_state_searched_is_bounded CHECK (NOT (lower_inf(searched) OR upper_inf(searched)));

ALTER TABLE fetch_run_accounts
    ADD COLUMN cause hole_cause,  -- why something is missing that the run asked for; null when nothing is
    ADD CONSTRAINT fetch_run_account_done_has_no_cause CHECK (outcome NOT IN ('pending', 'done') OR cause IS NULL);
