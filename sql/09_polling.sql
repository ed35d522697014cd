-- When each tracked account is looked at next, and what that rests on: how much it tweets, and at which hours.

ALTER TABLE user_state
    ADD COLUMN next_poll_at timestamptz,      -- null: as soon as may be
    -- The run that an account was handed to, by the sensor's key, so that no other takes it; after a while it is free.
    ADD COLUMN handed_to text,
    ADD COLUMN handed_at timestamptz,
    -- What was learned up to rate_known_at: for each hour of the UTC day how long it was watched and how many tweets were
    -- written in it, both weighed by age (twitter_pipeline/polling/rates.py).
    ADD COLUMN rate_known_at timestamptz,
    ADD COLUMN rate_hours double precision[],
    ADD COLUMN rate_tweets double precision[],
    ADD COLUMN tweets_per_hour double precision,  -- what the budget is shared out by
    ADD CONSTRAINT user_state_handed_has_a_time CHECK ((handed_to IS NULL) = (handed_at IS NULL)),
    ADD CONSTRAINT user_state_rate_is_whole CHECK (
        (rate_known_at IS NULL) = (rate_hours IS NULL) AND (rate_known_at IS NULL) = (rate_tweets IS NULL)
        AND (rate_known_at IS NULL) = (tweets_per_hour IS NULL)
    );

CREATE INDEX user_state_due ON user_state (next_poll_at NULLS FIRST) WHERE is_tracked;
CREATE INDEX user_state_handed ON user_state (handed_to) WHERE handed_to IS NOT NULL;
