-- Which responses describe a window, and what a refusal leaves behind.
--
-- The newest response decides, by X's Date and then by when its call was sent; without an order, a false header would
-- outlive the honest ones that follow it. A 429 pauses the token at its endpoint in a column of its own, so that a
-- pause never overwrites what X said of the window.

ALTER TABLE tokens_endpoint_rl
    ADD COLUMN IF NOT EXISTS answered_at timestamptz,       -- X's Date of the newest response that the row knows
    ADD COLUMN IF NOT EXISTS answered_call_at timestamptz,  -- when the call of that response was sent
    ADD COLUMN IF NOT EXISTS known_at timestamptz,          -- when that response was settled: a later call is newer whatever its Date
    ADD COLUMN IF NOT EXISTS undescribed integer NOT NULL DEFAULT 0,  -- calls so far that X may or may not have counted
    ADD COLUMN IF NOT EXISTS refused_since timestamptz,     -- the first 429 that no success has followed
    ADD COLUMN IF NOT EXISTS paused_until timestamptz;      -- nothing is sent before; `refusals` counts the back-offs since a success

-- X's reset, or NULL where it is past, zero or farther ahead of X's own Date than such a window can be.
CREATE OR REPLACE FUNCTION plausible_reset(epoch bigint, answered_at timestamptz, longest_s integer)
RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN epoch > extract(epoch FROM answered_at) AND epoch <= extract(epoch FROM answered_at) + longest_s THEN epoch
    END
$$;

-- What a response shows: the 'same' window within 2 s (the clocks of X's servers differ), unless it was closed after the
-- call was sent; else 'another' one, which replaces what is known if the response is newer, and with an earlier reset
-- only if it `corrects`. NULL where it changes nothing.
CREATE OR REPLACE FUNCTION window_shown(epoch bigint, known_epoch bigint, is_newer boolean, is_closed boolean, corrects boolean)
RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN epoch IS NULL THEN NULL
        WHEN abs(epoch - known_epoch) <= 2 THEN CASE WHEN is_newer OR NOT is_closed THEN 'same' END
        WHEN is_newer AND (corrects OR epoch > coalesce(known_epoch, 0)) THEN 'another'
    END
$$;

-- Correct a window by what became of a call, and return until when nothing is sent after a refusal. `describes` says that
-- the response speaks of this window at all, `said_at` is X's Date, `undescribed_before` how many calls were settled
-- without a description when this one was leased. store/windows.py explains how a window is kept.
CREATE OR REPLACE FUNCTION settle_window(
    of_token integer, at_endpoint text, of_call bigint, sent_at timestamptz, settled_at timestamptz, said_at timestamptz,
    undescribed_before integer, describes boolean, succeeded boolean, refused boolean, said_limit integer,
    said_remaining integer, said_epoch bigint, said_day_limit integer, said_day_remaining integer, said_day_epoch bigint,
    retry_after_s float8, back_off_s float8, longest_back_off_s float8, straddle_s float8, OUT nothing_until timestamptz
)
LANGUAGE plpgsql
AS $$
DECLARE
    w tokens_endpoint_rl;
    answered timestamptz := coalesce(said_at, settled_at);
    told_at float8 := extract(epoch FROM answered);
    epoch bigint := CASE WHEN describes THEN plausible_reset(said_epoch, answered, 3600) END;
    day_epoch bigint := CASE WHEN describes THEN plausible_reset(said_day_epoch, answered, 172800) END;
    used_up_until bigint := greatest(
        CASE WHEN said_remaining = 0 THEN epoch END, CASE WHEN said_day_remaining = 0 THEN day_epoch END
    );
    unseen integer;  -- so many undescribed calls beside this one X may have counted after it
    is_newer boolean;
    shown text;
    day_shown text;
    begins boolean;     -- the call was sent after the pause of the refusal before: it is another refusal
    back_offs integer;
BEGIN
    SELECT * INTO w FROM tokens_endpoint_rl t WHERE t.token_id = of_token AND t.endpoint = at_endpoint FOR UPDATE;
    unseen := w.undescribed - undescribed_before;
    is_newer := coalesce(
        sent_at >= w.known_at OR (answered, sent_at) >= (w.answered_at, w.answered_call_at), true
    );
    shown := window_shown(epoch, w.reset_epoch, is_newer, w.reset_at IS NULL, succeeded OR refused);
    day_shown := window_shown(day_epoch, w.day_reset_epoch, is_newer, false, succeeded OR refused);

    IF shown = 'another' THEN
        w.in_flight := calls_in_flight(of_token, at_endpoint, sent_at - straddle_s * interval '1 second', of_call);
        w.opened_at := sent_at;
        w.remaining := NULL;
        w.reset_epoch := NULL;
        w.reset_at := NULL;
    ELSIF sent_at > coalesce(w.opened_at - straddle_s * interval '1 second', '-infinity') THEN
        w.in_flight := greatest(0, w.in_flight - 1);
    END IF;
    IF shown IS NOT NULL THEN
        w.limit := CASE WHEN is_newer THEN said_limit ELSE w.limit END;
        w.remaining := least(
            CASE WHEN sent_at <= w.observed_at THEN w.remaining END, greatest(0, said_remaining - unseen)
        );
        w.reset_at := w.reset_at + greatest(0, epoch - w.reset_epoch) * interval '1 second';
        w.reset_epoch := greatest(w.reset_epoch, epoch);
        w.reset_at := least(w.reset_at, settled_at + (w.reset_epoch - told_at) * interval '1 second');
    ELSIF NOT refused AND (epoch IS NULL OR is_newer) THEN
        w.remaining := w.remaining - (w.remaining > 0)::integer;
        w.day_remaining := w.day_remaining - (w.day_remaining > 0)::integer;
        w.undescribed := w.undescribed + 1;
    END IF;

    IF day_shown = 'another' THEN
        w.day_remaining := NULL;
        w.day_reset_epoch := NULL;
        w.day_reset_at := NULL;
    END IF;
    IF day_shown IS NOT NULL THEN
        w.day_limit := CASE WHEN is_newer THEN said_day_limit ELSE w.day_limit END;
        w.day_remaining := least(
            CASE WHEN sent_at <= w.observed_at THEN w.day_remaining END, greatest(0, said_day_remaining - unseen)
        );
        w.day_reset_epoch := coalesce(w.day_reset_epoch, day_epoch);
        w.day_reset_at := least(w.day_reset_at, settled_at + (day_epoch - told_at) * interval '1 second');
    END IF;

    IF refused AND is_newer THEN
        begins := w.refused_since IS NULL OR sent_at >= w.paused_until;
        back_offs := greatest(1, w.refusals + begins::integer);
        nothing_until := settled_at + interval '1 second' * greatest(
            1, used_up_until - told_at, CASE WHEN retry_after_s <= 3600 THEN retry_after_s END,
            CASE WHEN used_up_until IS NULL OR (begins AND w.refused_since IS NOT NULL)
                 THEN least(back_off_s * 2 ^ least(back_offs - 1, 10), longest_back_off_s) END
        );
        IF used_up_until IS NULL OR (begins AND w.refused_since IS NOT NULL) THEN
            w.refusals := back_offs;
        END IF;
        -- The newest refusal decides, but does not shorten a back-off.
        w.paused_until := CASE WHEN begins OR w.refusals = 0 THEN nothing_until
                               ELSE greatest(w.paused_until, nothing_until) END;
        w.refused_since := coalesce(w.refused_since, settled_at);
    ELSIF refused AND coalesce(used_up_until > extract(epoch FROM w.answered_at), true) THEN
        w.paused_until := greatest(w.paused_until, settled_at + interval '1 second');
    ELSIF succeeded AND is_newer THEN
        w.refusals := 0;
        w.refused_since := NULL;
        IF shown IS NOT NULL AND w.paused_until > settled_at + interval '1 second' THEN
            w.paused_until := settled_at + interval '1 second';
        END IF;
    END IF;

    IF is_newer AND (describes OR refused) THEN
        w.answered_at := answered;
        w.answered_call_at := sent_at;
        w.known_at := settled_at;
    END IF;

    UPDATE tokens_endpoint_rl t
    SET in_flight = w.in_flight, opened_at = w.opened_at, "limit" = w.limit, remaining = w.remaining,
        reset_epoch = w.reset_epoch, reset_at = w.reset_at, day_limit = w.day_limit, day_remaining = w.day_remaining,
        day_reset_epoch = w.day_reset_epoch, day_reset_at = w.day_reset_at, refusals = w.refusals,
        refused_since = w.refused_since, paused_until = w.paused_until, answered_at = w.answered_at,
        answered_call_at = w.answered_call_at, known_at = w.known_at, undescribed = w.undescribed,
        observed_at = settled_at
    WHERE t.token_id = of_token AND t.endpoint = at_endpoint;
    nothing_until := w.paused_until;
END
$$;

-- Earlier versions believed any reset.
UPDATE tokens_endpoint_rl
SET remaining = NULL, reset_at = NULL, reset_epoch = NULL
WHERE reset_at > now() + interval '1 hour';
UPDATE tokens_endpoint_rl
SET day_remaining = NULL, day_reset_at = NULL, day_reset_epoch = NULL
WHERE day_reset_at > now() + interval '48 hours';

-- A token that X has refused once is suspended until one call, by whichever process, has shown whether it works. So is any
-- token out of use while a call tests it again. `status_until` is from when on one call may do that, `status_since` since
-- when the token is in use, or out of it.
ALTER TYPE token_status ADD VALUE IF NOT EXISTS 'suspended' AFTER 'active';

ALTER TABLE tokens
    DROP CONSTRAINT IF EXISTS token_until_is_for_capped,
    DROP CONSTRAINT IF EXISTS token_until_is_for_tokens_out_of_use,
    DROP CONSTRAINT IF EXISTS token_refusals_not_negative,
    ADD COLUMN IF NOT EXISTS capped_until timestamptz,  -- X's date, which stays while a cap is tested before it
    ADD COLUMN IF NOT EXISTS refusals integer NOT NULL DEFAULT 0,  -- tests in a row that X has refused: each doubles the time to the next
    ADD CONSTRAINT token_until_is_for_tokens_out_of_use CHECK (status_until IS NULL OR status <> 'active'),
    ADD CONSTRAINT token_refusals_not_negative CHECK (refusals >= 0);

ALTER TYPE alert_kind ADD VALUE IF NOT EXISTS 'calls_refused' AFTER 'no_token_left';  -- of one token at one endpoint

UPDATE tokens SET status_until = now() + interval '1 day' WHERE status_until > now() + interval '32 days';
UPDATE tokens SET status_until = now() WHERE status <> 'active' AND status_until IS NULL;
