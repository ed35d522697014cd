-- What calls cost, by UTC day and by run, so that no two processes together pass a budget (twitter_pipeline/budgets.py).
--
-- Before a call is sent, the most that it can cost is written into its row in api_calls; until the call is settled that
-- counts as if it were spent. A trigger carries every change of such a row into `spending`, in the same transaction: what
-- is spent is at every moment the sum of the bills in api_calls, and what is reserved that of the calls under way.
-- Without a budget nothing is reserved, and these rows are left alone.

-- Why tweets of an account are missing: a budget was used up.
ALTER TYPE hole_cause ADD VALUE IF NOT EXISTS 'budget';

ALTER TABLE api_calls
    ADD COLUMN reserved_posts integer,  -- the most that the call can be billed; null when no budget was set
    ADD COLUMN reserved_users integer,
    ADD CONSTRAINT api_call_reservation_is_whole CHECK ((reserved_posts IS NULL) = (reserved_users IS NULL)),
    ADD CONSTRAINT api_call_reservation_not_negative CHECK (reserved_posts >= 0 AND reserved_users >= 0);

CREATE TABLE spending (
    id bigint GENERATED ALWAYS AS IDENTITY,
    day date,                 -- of UTC, on which the calls were sent
    fetch_run_id bigint,
    posts bigint NOT NULL DEFAULT 0,
    users bigint NOT NULL DEFAULT 0,
    reserved_posts bigint NOT NULL DEFAULT 0,
    reserved_users bigint NOT NULL DEFAULT 0,
    counted_at timestamptz NOT NULL DEFAULT '-infinity',  -- when the calls of a day were last counted from scratch

    CONSTRAINT spending_pkey PRIMARY KEY (id),
    CONSTRAINT spending_day_is_unique UNIQUE (day),
    CONSTRAINT spending_run_is_unique UNIQUE (fetch_run_id),
    CONSTRAINT spending_is_of_a_day_or_a_run CHECK ((day IS NULL) <> (fetch_run_id IS NULL)),
    CONSTRAINT spending_belongs_to_a_run FOREIGN KEY (fetch_run_id) REFERENCES fetch_runs (id) ON DELETE CASCADE
)
-- Few rows, updated twice a call: room on the page lets them stay there (HOT).
WITH (fillfactor = 20);

-- Rows are locked in one order everywhere, so that nobody deadlocks: windows of tokens and calls before `spending`, and
-- there days before runs, earlier days first.

CREATE FUNCTION count_bill() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    was_open boolean := TG_OP = 'UPDATE' AND OLD.outcome IS NULL;
    is_open boolean := NEW.outcome IS NULL;
    more_posts integer := coalesce(NEW.billed_posts, 0) - coalesce(OLD.billed_posts, 0);
    more_users integer := coalesce(NEW.billed_users, 0) - coalesce(OLD.billed_users, 0);
    reserve_posts integer := CASE WHEN is_open THEN NEW.reserved_posts ELSE 0 END
        - CASE WHEN was_open THEN coalesce(OLD.reserved_posts, 0) ELSE 0 END;
    reserve_users integer := CASE WHEN is_open THEN NEW.reserved_users ELSE 0 END
        - CASE WHEN was_open THEN coalesce(OLD.reserved_users, 0) ELSE 0 END;
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

CREATE TRIGGER api_call_counts_when_it_is_reserved
AFTER INSERT ON api_calls FOR EACH ROW
WHEN (NEW.reserved_posts IS NOT NULL)
EXECUTE FUNCTION count_bill();

CREATE TRIGGER api_call_counts_when_it_is_billed
AFTER UPDATE ON api_calls FOR EACH ROW
WHEN (NEW.reserved_posts IS NOT NULL)
EXECUTE FUNCTION count_bill();

CREATE FUNCTION begin_of_billing_month(of_day date, billing_day integer) RETURNS date
LANGUAGE sql IMMUTABLE
AS $$
    SELECT date_trunc('month', (of_day - (billing_day - 1))::timestamp)::date + (billing_day - 1)
$$;

-- Counts the calls of the billing month from scratch, those of days that are over only until they are final: so calls of
-- processes without a budget count too, and calls of this very day when a budget is first set in the middle of it. The
-- rows of old calls may have been deleted, so what was counted of a day that is over never becomes less.
CREATE FUNCTION count_spending(sent_at timestamptz, billing_day integer) RETURNS void
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
    -- Calls that will not be settled any more: no call takes so long, so their processes died, outside of any run.
    UPDATE api_calls SET reserved_posts = 0, reserved_users = 0
    WHERE id IN (
        SELECT id FROM api_calls
        WHERE called_at >= first_day::timestamp AT TIME ZONE 'UTC' AND called_at < sent_at - interval '15 minutes'
          AND outcome IS NULL AND reserved_posts + reserved_users > 0
        FOR UPDATE SKIP LOCKED
    );
    WITH wanted AS (
        SELECT day FROM spending
        WHERE day BETWEEN first_day AND today
          AND counted_at < ((day + 1)::timestamp AT TIME ZONE 'UTC') + interval '15 minutes'
    ), counted AS (
        SELECT (called_at AT TIME ZONE 'UTC')::date AS day,
               coalesce(sum(billed_posts), 0) AS posts, coalesce(sum(billed_users), 0) AS users,
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

-- Tells which budget a call could pass that costs so much at most, null if none, and whether it is used up without what
-- calls under way have reserved. The rows stay locked to the end of the transaction, in which the call reserves its cost;
-- yesterday's too, since somebody may still reserve there at this very moment. A null limit is none.
CREATE FUNCTION budget_passed(
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
            SELECT of_run, coalesce(sum(billed_posts), 0), coalesce(sum(billed_users), 0),
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
