-- What is stored of each account, as sets of id intervals. A page and the interval that it proves are written in one
-- transaction, so `covered` is true at every instant, whatever is killed. What is missing is a query:
-- '{[1,)}'::int8multirange - covered.

CREATE TABLE user_state (
    user_id bigint NOT NULL,
    is_tracked boolean NOT NULL DEFAULT false,
    tracked_since timestamptz,
    covered int8multirange NOT NULL DEFAULT '{}',
    -- Where the timeline has ended although there is more below (it serves the newest 3,200): only the archive fills it.
    unreachable int8multirange NOT NULL DEFAULT '{}',
    -- The top of covered: derived, so that it cannot run ahead of what is stored below it.
    last_seen_id bigint GENERATED ALWAYS AS (upper(covered) - 1) STORED,
    last_polled_at timestamptz,

    CONSTRAINT user_state_pkey PRIMARY KEY (user_id),
    CONSTRAINT user_state_belongs_to_a_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT user_state_covered_is_bounded CHECK (NOT (lower_inf(covered) OR upper_inf(covered))),
    CONSTRAINT user_state_tracked_has_a_date CHECK (NOT is_tracked OR tracked_since IS NOT NULL)
);

CREATE INDEX user_state_tracked ON user_state (user_id) WHERE is_tracked;
