"""What Prometheus is told, read from the database when it asks. Labels name tokens by their variables, never more."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from twitter_pipeline import __version__
from twitter_pipeline.budgets import Period, Spent
from twitter_pipeline.delays import Delays
from twitter_pipeline.probes import NEEDED, PATIENCE_S, Addresses, Finding, Part, probe
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.activity import Window, load_all_windows
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.delays import load_delays
from twitter_pipeline.store.metrics import (
    RecentCalls,
    TweetCounts,
    WatchQueue,
    load_calls_ever,
    load_dagster_runs,
    load_open_alert_counts,
    load_recent_calls,
    load_run_counts,
    load_tweet_counts,
    load_watch_queue,
)
from twitter_pipeline.store.probes import connect
from twitter_pipeline.store.spending import load_spent
from twitter_pipeline.store.tokens import TokenState, load_tokens
from twitter_pipeline.words import AlertKind, FetchKind, RunStatus, TokenStatus

DELAYS_LAST_S = 300.0
"""For so long the delays of the last day are not measured again: they read a row for each tweet of that day."""

IN_DAGSTER = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is told when the database answers and has this code's schema."""

    calls_ever: int
    calls: tuple[RecentCalls, ...]
    tweets: TweetCounts
    runs: Mapping[tuple[FetchKind, RunStatus], int]
    in_dagster: Mapping[str, int]
    watch: WatchQueue
    delays: Delays
    tokens: tuple[TokenState, ...]
    windows: tuple[Window, ...]
    spent: tuple[Spent, ...]
    alerts: Mapping[AlertKind, int]


class Metrics:
    """Reads the figures anew whenever it is asked; serves as a collector of prometheus_client."""

    def __init__(self, database: Database, addresses: Addresses, settings: Settings) -> None:
        self._database = database
        self._addresses = addresses
        self._settings = settings
        self._delays: tuple[float, Delays] | None = None

    def probe(self, parts: Iterable[Part] = NEEDED) -> list[Finding]:
        """Look whether parts are there and at work."""
        return probe(tuple(parts), self._addresses, env_keys=self._settings.bearer_tokens)

    def collect(self) -> Iterator[Metric]:
        """Give all metrics; those of the parts alone when the database cannot be asked for the rest."""
        findings = self.probe((*NEEDED, Part.LISTENER))
        yield from metrics_of_parts(findings)
        is_well = {each.part: each.is_well for each in findings}
        if not (is_well[Part.DATABASE] and is_well[Part.SCHEMA]):
            return
        try:
            figures = self._load()
        except (DatabaseFault, psycopg.Error):
            # It went away between the two looks: the next one tells of it.
            return
        yield from metrics_of(figures, self._settings)

    def _load(self) -> Figures:
        database = self._database
        return Figures(
            calls_ever=load_calls_ever(database),
            calls=tuple(load_recent_calls(database)),
            tweets=load_tweet_counts(database),
            runs=load_run_counts(database),
            in_dagster=self._load_dagster_runs(),
            watch=load_watch_queue(database),
            delays=self._load_delays(),
            tokens=tuple(load_tokens(database)),
            windows=tuple(load_all_windows(database)),
            spent=tuple(load_spent(database, self._settings.budgets)),
            alerts=load_open_alert_counts(database),
        )

    def _load_dagster_runs(self) -> Mapping[str, int]:
        try:
            with closing(connect(self._addresses.dagster, patience_s=PATIENCE_S)) as connection:
                return load_dagster_runs(connection)
        except psycopg.Error:
            # That the storage does not answer is told by its part.
            return {}

    def _load_delays(self) -> Delays:
        now = time.monotonic()
        if self._delays is None or now - self._delays[0] > DELAYS_LAST_S:
            self._delays = (now, load_delays(self._database, promise=self._settings.watch_promise))
        return self._delays[1]


def metrics_of_parts(findings: Iterable[Finding]) -> Iterator[Metric]:
    """Give which program this is and how its parts are."""
    yield _gauge("info", "The version of the program.", {(__version__,): 1}, "version")
    yield _gauge(
        "part_well",
        "1 while a part of the installation is there and at work, as `twitter-pipeline health` tells.",
        {(each.part.value,): each.is_well for each in findings},
        "part",
    )


def metrics_of(figures: Figures, settings: Settings) -> Iterator[Metric]:
    """Give what the figures tell."""
    yield from _of_calls(figures)
    yield from _of_work(figures)
    yield from _of_watch(figures)
    yield from _of_tokens(figures)
    yield from _of_budgets(figures, settings)


_OF_RECENT_CALLS: tuple[tuple[str, str, Callable[[RecentCalls], int]], ...] = (
    (
        "recent_calls",
        "Calls of the last 5 minutes; too_many_requests are refusals, under_way has no answer yet.",
        lambda each: each.calls,
    ),
    (
        "recent_results",
        "Tweets and profiles that the calls of the last 5 minutes brought.",
        lambda each: each.results,
    ),
    (
        "recent_billed_posts",
        "Posts that X bills of the calls of the last 5 minutes.",
        lambda each: each.billed_posts,
    ),
    (
        "recent_billed_users",
        "Profiles that X bills of the calls of the last 5 minutes.",
        lambda each: each.billed_users,
    ),
)


def _of_calls(figures: Figures) -> Iterator[Metric]:
    yield _counter("calls", "Calls that were ever sent to X.", figures.calls_ever)
    for name, said, value_of in _OF_RECENT_CALLS:
        values = {(each.endpoint, each.outcome): value_of(each) for each in figures.calls}
        yield _gauge(name, said, values, "endpoint", "outcome")
    yield _counter("tweets_stored", "Tweets stored since PostgreSQL's statistics begin.", figures.tweets.stored)
    yield _gauge("tweets", "How many tweets there are, as PostgreSQL estimates.", {(): figures.tweets.estimated})


def _of_work(figures: Figures) -> Iterator[Metric]:
    yield _gauge(
        "runs",
        "Runs that work, and those that ended in the last hour.",
        {(kind.value, status.value): figures.runs.get((kind, status), 0) for kind in FetchKind for status in RunStatus},
        "kind",
        "status",
    )
    yield _gauge(
        "dagster_runs",
        "Runs that wait (QUEUED) or work in Dagster.",
        {(status,): figures.in_dagster.get(status, 0) for status in IN_DAGSTER},
        "status",
    )
    yield _gauge(
        "open_alerts",
        "Alerts that last.",
        {(kind.value,): figures.alerts.get(kind, 0) for kind in AlertKind},
        "kind",
    )


def _of_watch(figures: Figures) -> Iterator[Metric]:
    watch, delays = figures.watch, figures.delays
    yield _gauge("tracked_accounts", "Accounts on the watch list.", {(): watch.tracked})
    yield _gauge("due_accounts", "Accounts that wait to be polled.", {(): watch.due})
    yield _gauge(
        "longest_due_seconds", "For how long the account has been due that waits longest.", {(): watch.overdue_s}
    )
    quantiles = {("0.5",): delays.median_s, ("0.95",): delays.p95_s}
    yield _gauge(
        "watch_delay_seconds",
        "From the writing to the storing of the tweets that the watch found in the last day.",
        {key: value for key, value in quantiles.items() if value is not None},
        "quantile",
    )
    yield _gauge("watch_tweets", "Tweets of the last day that the watch found.", {(): delays.tweets})
    if delays.within is not None:
        yield _gauge(
            "watch_promise_kept_ratio",
            "Which share of them was stored within TWITTER_WATCH_PROMISE_SECONDS.",
            {(): delays.within},
        )


def _of_tokens(figures: Figures) -> Iterator[Metric]:
    yield _gauge(
        "token_status",
        "1 for the status that a token has, 0 for the others.",
        {(each.env_key, status.value): each.status is status for each in figures.tokens for status in TokenStatus},
        "token",
        "status",
    )
    windows = {(each.env_key, each.endpoint): each for each in figures.windows if each.limit is not None}
    labels = ("token", "endpoint")
    yield _gauge(
        "window_limit",
        "Calls that X allows a token in a window of 15 minutes.",
        {key: each.limit or 0 for key, each in windows.items()},
        *labels,
    )
    yield _gauge(
        "window_remaining",
        "Calls that are left of it; all of them once the window is over.",
        {key: remaining_of(each) for key, each in windows.items()},
        *labels,
    )


def _of_budgets(figures: Figures, settings: Settings) -> Iterator[Metric]:
    limits = {period: settings.budgets.limit(period) for period in (Period.DAY, Period.MONTH)}
    usd = {(period.value,): float(each.usd) for period, each in limits.items() if each.usd is not None}
    posts = {(period.value,): each.posts for period, each in limits.items() if each.posts is not None}
    spent = {(each.period.value,): each.billed for each in figures.spent}
    yield _gauge(
        "spent_dollars",
        "What was spent in the UTC day and the billing month that have a budget.",
        {key: float(billed.usd(settings.prices)) for key, billed in spent.items()},
        "period",
    )
    yield _gauge(
        "spent_posts", "Posts that are billed in them.", {key: billed.posts for key, billed in spent.items()}, "period"
    )
    yield _gauge("budget_dollars", "The budgets in US dollars.", usd, "period")
    yield _gauge("budget_posts", "The budgets in posts.", posts, "period")


def remaining_of(window: Window) -> int:
    """Return how many calls a window still allows: of one that is over, all."""
    if window.remaining is None or window.reset_at is None or window.reset_at <= window.now:
        return max(0, (window.limit or 0) - window.in_flight)
    return max(0, window.remaining - window.in_flight)


def _gauge(name: str, said: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    metric = GaugeMetricFamily(f"twitter_pipeline_{name}", said, labels=labels)
    for key, value in values.items():
        metric.add_metric(key, float(value))
    return metric


def _counter(name: str, said: str, value: int) -> Metric:
    return CounterMetricFamily(f"twitter_pipeline_{name}", said, value=value)
