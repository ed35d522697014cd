-- The window of each token at each endpoint: what every process shares, so that no call is sent that X would refuse.
--
-- `remaining` is the least that X has said in the window `reset_epoch`, so it counts every call that was answered;
-- `in_flight` counts the calls handed out and not settled yet. What may still be sent is `remaining - in_flight`.
-- Where `reset_at` is null or past, nothing is known of the window: one call at a time until headers come.
-- reset_at is in this server's time (X's reset less X's `date` header, counted from now), so that no wrong clock
-- matters; reset_epoch is X's own number and tells one window from the next.

CREATE TABLE tokens_endpoint_rl (
    token_id integer NOT NULL,
    endpoint text NOT NULL,
    "limit" integer,
    remaining integer,
    reset_at timestamptz,
    reset_epoch bigint,
    day_limit integer,
    day_remaining integer,
    day_reset_at timestamptz,
    day_reset_epoch bigint,
    in_flight integer NOT NULL DEFAULT 0,
    leased_at timestamptz,   -- when the latest call was handed out
    opened_at timestamptz,   -- when in_flight was last counted afresh; calls from before do not count in it
    refusals integer NOT NULL DEFAULT 0,  -- 429s without headers, one after the other: each doubles the back-off
    observed_at timestamptz,

    CONSTRAINT tokens_endpoint_rl_pkey PRIMARY KEY (token_id, endpoint),
    CONSTRAINT token_window_belongs_to_a_token FOREIGN KEY (token_id) REFERENCES tokens (id) ON DELETE CASCADE,
    CONSTRAINT token_window_limit_not_negative CHECK ("limit" >= 0 AND day_limit >= 0),
    CONSTRAINT token_window_remaining_not_negative CHECK (remaining >= 0 AND day_remaining >= 0),
    CONSTRAINT token_window_in_flight_not_negative CHECK (in_flight >= 0)
)
-- Two updates a call on few rows: room on the page lets them stay there (HOT).
WITH (fillfactor = 20);
