-- What runs are fetching at this moment: the ids that each still has to walk down to, by account. A second run on the
-- same account sees what the first holds, waits for it, and fetches the rest: nothing is asked for twice. It saves
-- calls and is not what coverage rests on: two runs over the same ids are harmless.

CREATE TABLE walks (
    user_id bigint NOT NULL,
    fetch_run_id bigint NOT NULL,
    ids int8range NOT NULL,  -- empty between two holes
    claimed_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT walks_pkey PRIMARY KEY (user_id, fetch_run_id),
    CONSTRAINT walk_belongs_to_an_account FOREIGN KEY (user_id) REFERENCES user_state (user_id) ON DELETE CASCADE,
    CONSTRAINT walk_belongs_to_a_run FOREIGN KEY (fetch_run_id) REFERENCES fetch_runs (id) ON DELETE CASCADE
)
-- A row is updated with each page.
WITH (fillfactor = 50);

CREATE INDEX walks_fetch_run ON walks (fetch_run_id);

-- Claims ids of an account for a run, unless another run that is alive holds some of them. A run is alive while somebody
-- holds its advisory lock (`alive_lock` is the first key); what a dead one held is taken away. The row of the account is
-- locked first, and each statement of such a function sees what was committed before it: of two that ask at once, one
-- gets it.
CREATE FUNCTION claim_ids(of_user bigint, for_run bigint, wanted int8range, alive_lock integer)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM FROM user_state WHERE user_id = of_user FOR UPDATE;
    DELETE FROM walks w
    WHERE w.user_id = of_user AND w.fetch_run_id <> for_run
      AND pg_try_advisory_xact_lock(alive_lock, w.fetch_run_id::integer);
    IF EXISTS (SELECT FROM walks w WHERE w.user_id = of_user AND w.fetch_run_id <> for_run AND w.ids && wanted) THEN
        RETURN false;
    END IF;
    INSERT INTO walks (user_id, fetch_run_id, ids) VALUES (of_user, for_run, wanted)
    ON CONFLICT (user_id, fetch_run_id) DO UPDATE SET ids = excluded.ids, claimed_at = excluded.claimed_at;
    RETURN true;
END
$$;
