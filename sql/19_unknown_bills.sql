-- Calls without a whole response: X may have billed them, and no one knows. They count against budgets at the most that
-- they can cost, which is now written with every lease, also where no budget is set.
--
-- Such a call has an outcome and no bill: it timed out or broke off after it was sent, its response was unreadable, or its
-- process died. A row without an outcome is a call in flight, or a lost one that is not yet known to be.

ALTER TYPE call_outcome ADD VALUE IF NOT EXISTS 'lost';  -- never settled: its process died

-- X counts a lost call in its window or does not, like one in flight. Compared as text, because the transaction that adds
-- a value to an enum cannot use it; for the same reason count_spending marks the lost calls of earlier versions.
CREATE OR REPLACE FUNCTION calls_in_flight(
    of_token integer, at_endpoint text, since timestamptz, but_for bigint DEFAULT NULL
)
RETURNS integer
LANGUAGE sql VOLATILE
AS $$
    SELECT count(*)::integer
    FROM api_calls
    WHERE called_at > since AND token_id = of_token AND endpoint = at_endpoint
      AND coalesce(outcome::text, 'lost') = 'lost' AND id IS DISTINCT FROM but_for
$$;

-- What a call counts as spent: its bill, the most that it can be where that is unknown, and nothing while it is in flight.
CREATE FUNCTION counted_bill(billed integer, reserved integer, outcome call_outcome) RETURNS integer
LANGUAGE sql IMMUTABLE
AS $$
    SELECT coalesce(billed, CASE WHEN outcome IS NOT NULL THEN reserved END, 0)
$$;

CREATE OR REPLACE FUNCTION count_bill() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    more_posts integer := counted_bill(NEW.billed_posts, NEW.reserved_posts, NEW.outcome)
        - counted_bill(OLD.billed_posts, OLD.reserved_posts, OLD.outcome);
    more_users integer := counted_bill(NEW.billed_users, NEW.reserved_users, NEW.outcome)
        - counted_bill(OLD.billed_users, OLD.reserved_users, OLD.outcome);
    reserve_posts integer := CASE WHEN NEW.outcome IS NULL THEN NEW.reserved_posts ELSE 0 END
        - CASE WHEN OLD.outcome IS NULL THEN coalesce(OLD.reserved_posts, 0) ELSE 0 END;
    reserve_users integer := CASE WHEN NEW.outcome IS NULL THEN NEW.reserved_users ELSE 0 END
        - CASE WHEN OLD.outcome IS NULL THEN coalesce(OLD.reserved_users, 0) ELSE 0 END;
BEGIN
    IF (more_posts, more_users, reserve_posts, reserve_users) = (0, 0, 0, 0) THEN
        RETURN NULL;
    END IF;
    UPDATE spending
    SET posts = posts + more_posts, users = users + more_users,
        reserved_posts = reserved_posts + reserve_posts, reserved_users = reserved_users + reserve_users
    WHERE day = (NEW.called_at AT TIME ZONE 'UTC')::date;
    UPDATE spending
    SET posts = posts + more_posts, users = users + more_users,
        reserved_posts = reserved_posts + reserve_posts, reserved_users = reserved_users + reserve_users
    WHERE fetch_run_id = NEW.fetch_run_id;
    RETURN NULL;
END
$$;

-- As in 15_partitions.sql, but that calls which were never settled are lost, and count.
CREATE OR REPLACE FUNCTION count_spending(sent_at timestamptz, billing_day integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    today date := (sent_at AT TIME ZONE 'UTC')::date;
    first_day date := least(begin_of_billing_month(today, billing_day), today - 1);
BEGIN
    INSERT INTO spending (day)
    SELECT d::date FROM generate_series(first_day::timestamp, today::timestamp, interval '1 day') AS d
    WHERE NOT EXISTS (SELECT FROM spending s WHERE s.day = d::date)
    ORDER BY d
    ON CONFLICT (day) DO NOTHING;
    PERFORM FROM spending WHERE day BETWEEN first_day AND today ORDER BY day FOR UPDATE;
    -- No call takes so long: their processes died, outside of any run.
    UPDATE api_calls SET outcome = 'lost'
    WHERE called_at >= first_day::timestamp AT TIME ZONE 'UTC' AND (id, called_at) IN (
        SELECT id, called_at FROM api_calls
        WHERE called_at >= first_day::timestamp AT TIME ZONE 'UTC' AND called_at < sent_at - interval '15 minutes'
          AND outcome IS NULL
        FOR UPDATE SKIP LOCKED
    );
    WITH wanted AS (
        SELECT day FROM spending
        WHERE day BETWEEN first_day AND today
          AND counted_at < ((day + 1)::timestamp AT TIME ZONE 'UTC') + interval '15 minutes'
    ), counted AS (
        SELECT (called_at AT TIME ZONE 'UTC')::date AS day,
               sum(counted_bill(billed_posts, c.reserved_posts, outcome)) AS posts,
               sum(counted_bill(billed_users, c.reserved_users, outcome)) AS users,
               coalesce(sum(c.reserved_posts) FILTER (WHERE outcome IS NULL), 0) AS reserved_posts,
               coalesce(sum(c.reserved_users) FILTER (WHERE outcome IS NULL), 0) AS reserved_users
        FROM api_calls c
        WHERE called_at >= (SELECT min(day) FROM wanted)::timestamp AT TIME ZONE 'UTC'
        GROUP BY 1
    )
    UPDATE spending s
    SET posts = greatest(coalesce(c.posts, 0), CASE WHEN s.day < today THEN s.posts ELSE 0 END),
        users = greatest(coalesce(c.users, 0), CASE WHEN s.day < today THEN s.users ELSE 0 END),
        reserved_posts = coalesce(c.reserved_posts, 0), reserved_users = coalesce(c.reserved_users, 0),
        counted_at = sent_at
    FROM wanted LEFT JOIN counted c USING (day)
    WHERE s.day = wanted.day;
END
$$;

-- As in 13_budgets.sql, but for what the calls of a run count.
CREATE OR REPLACE FUNCTION budget_passed(
    sent_at timestamptz, of_run bigint, more_posts integer, more_users integer, post_usd numeric, user_usd numeric,
    billing_day integer, run_usd numeric, run_posts bigint, day_usd numeric, day_posts bigint, month_usd numeric,
    month_posts bigint, OUT period text, OUT is_used_up boolean
)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    today date := (sent_at AT TIME ZONE 'UTC')::date;
BEGIN
    IF NOT EXISTS (SELECT FROM spending WHERE day = today) THEN
        PERFORM count_spending(sent_at, billing_day);
    END IF;
    PERFORM FROM spending WHERE day BETWEEN today - 1 AND today ORDER BY day FOR UPDATE;
    IF of_run IS NOT NULL THEN
        PERFORM FROM spending WHERE fetch_run_id = of_run FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO spending (fetch_run_id, posts, users, reserved_posts, reserved_users)
            SELECT of_run, coalesce(sum(counted_bill(billed_posts, reserved_posts, outcome)), 0),
                   coalesce(sum(counted_bill(billed_users, reserved_users, outcome)), 0),
                   coalesce(sum(reserved_posts) FILTER (WHERE outcome IS NULL), 0),
                   coalesce(sum(reserved_users) FILTER (WHERE outcome IS NULL), 0)
            FROM api_calls
            WHERE fetch_run_id = of_run AND called_at >= (SELECT started_at FROM fetch_runs WHERE id = of_run)
            ON CONFLICT (fetch_run_id) DO NOTHING;
            PERFORM FROM spending WHERE fetch_run_id = of_run FOR UPDATE;
        END IF;
    END IF;
    IF more_posts + more_users = 0 THEN
        RETURN;
    END IF;
    SELECT short.name, short.is_used_up INTO period, is_used_up
    FROM (
        SELECT p.name, p.place,
               p.posts + more_posts > p.most_posts
                   OR (p.posts + more_posts) * post_usd + (p.users + more_users) * user_usd > p.most_usd AS is_used_up,
               p.posts + p.reserved_posts + more_posts > p.most_posts
                   OR (p.posts + p.reserved_posts + more_posts) * post_usd
                      + (p.users + p.reserved_users + more_users) * user_usd > p.most_usd AS is_short
        FROM (
            SELECT 'run' AS name, 1 AS place, run_usd AS most_usd, run_posts AS most_posts,
                   posts, users, reserved_posts, reserved_users
            FROM spending WHERE fetch_run_id = of_run
            UNION ALL
            SELECT 'day', 2, day_usd, day_posts, posts, users, reserved_posts, reserved_users
            FROM spending WHERE day = today
            UNION ALL
            SELECT 'month', 3, month_usd, month_posts, sum(posts), sum(users), sum(reserved_posts), sum(reserved_users)
            FROM spending WHERE day BETWEEN begin_of_billing_month(today, billing_day) AND today
        ) AS p
    ) AS short
    WHERE short.is_short
    ORDER BY coalesce(short.is_used_up, false) DESC, short.place DESC
    LIMIT 1;
    is_used_up := coalesce(is_used_up, false);
END
$$;
