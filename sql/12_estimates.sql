-- What a run was expected to take when its names were resolved, to be held against what it took: calls and dollars with
-- those of the look-ups. Null where nothing was estimated, as for runs of the watch.

ALTER TABLE fetch_runs
    ADD COLUMN estimated_calls integer,
    ADD COLUMN estimated_posts bigint,
    ADD COLUMN estimated_cost_usd numeric(12, 3),
    ADD COLUMN estimated_s double precision,  -- null also when no token could be used
    ADD CONSTRAINT fetch_run_estimate_is_not_negative CHECK (
        estimated_calls >= 0 AND estimated_posts >= 0 AND estimated_cost_usd >= 0 AND estimated_s >= 0
    );
