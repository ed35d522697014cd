"""Follow a run while it works: how far it is and when it is expected to end, for whoever shows it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from twitter_pipeline.coverage import id_at
from twitter_pipeline.progress import Budget, Look, budgets, progress_parts
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.progress import load_busiest_endpoint, load_expected_calls, load_ids_left
from twitter_pipeline.store.runs import Progress, load_progress
from twitter_pipeline.store.windows import load_windows
from twitter_pipeline.tokens import CONFIRMATION, NO_ANSWER, REFUSED
from twitter_pipeline.x_api.endpoints import Endpoint

LOOKS_KEPT = 360

BUDGET_EVERY = timedelta(seconds=5)
"""From one reading of the limits to the next."""


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


class RunFollower:
    """What was seen of a run by one look after the other.

    What is left is measured in calls where they were estimated, else in accounts; of a backfill in ids, since its
    accounts share their searches and may all end at once.
    """

    def __init__(
        self,
        database: Database,
        dagster_run_id: str,
        requests: Sequence[FetchRequest],
        *,
        settings: Settings,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._dagster_run_id = dagster_run_id
        self._requests = requests
        self._settings = settings
        self._clock = clock
        self._began_at = clock()
        self._is_backfill = all(each.fetch_mode.months is not None for each in requests)
        self._expected_calls: int | None = None
        self._budget: Sequence[Budget] = ()
        self._budget_read_at: datetime | None = None
        self.looks: list[Look] = []

    def look(self) -> Look | None:
        """Look once more; None as long as the run has no accounts."""
        progress = load_progress(self._database, self._dagster_run_id)
        if not progress.accounts:
            return None
        now = self._clock()
        if self._expected_calls is None and not self._is_backfill:
            self._expected_calls = load_expected_calls(self._database, self._dagster_run_id)
            if self._expected_calls is not None:
                # Up to now what is left was counted in accounts.
                self.looks = []
        look = Look(now, progress, self._left(progress))
        # The first stays: the work since then tells what the rest takes.
        first = self.looks[0] if self.looks else self._first(look)
        self.looks = [first, *self.looks[1:][-LOOKS_KEPT:], look]
        self._read_budget(progress, now)
        return look

    def parts(self, *, at: Callable[[datetime, datetime], str] | None = None) -> list[str]:
        """Say how far the run is, in the parts of one line, what is asked for most often first."""
        return progress_parts(self.looks, self._budget, at=at)

    def _left(self, progress: Progress) -> float:
        if self._is_backfill:
            settled = id_at(self._began_at - self._settings.settle)
            return load_ids_left(self._database, self._dagster_run_id, self._requests, up_to=settled)
        unended = progress.accounts - progress.accounts_ended
        # What was estimated may be too little; an account that has not ended takes a call at least.
        return max(unended, (self._expected_calls or 0) - progress.calls) if unended else 0

    def _first(self, look: Look) -> Look:
        """Return what the work is counted from: its beginning; of ids, what the first look saw."""
        if self._is_backfill:
            return look
        nothing = Progress(look.progress.accounts, 0, 0, 0, 0, None, None)
        return Look(self._began_at, nothing, self._left(nothing))

    def _read_budget(self, progress: Progress, now: datetime) -> None:
        if self._budget_read_at is not None and now - self._budget_read_at < BUDGET_EVERY:
            return
        endpoint = progress.waiting_for or load_busiest_endpoint(self._database, self._dagster_run_id)
        if endpoint is None or endpoint == CONFIRMATION or endpoint.startswith(NO_ANSWER):
            return
        at_endpoint = Endpoint(endpoint.removeprefix(REFUSED))
        windows = load_windows(self._database, at_endpoint, sorted(self._settings.bearer_tokens))
        self._budget = budgets(windows, share=self._settings.backfill_share if self._is_backfill else 1.0)
        self._budget_read_at = now
