"""What is wrong now and what was told before -> what to tell; and how each trouble is put for a person."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any

from twitter_pipeline.budgets import Budgets, Cost, Spent, describe_used_up
from twitter_pipeline.errors import Availability
from twitter_pipeline.health import MEND_TOKEN
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.activity import Window
from twitter_pipeline.store.refused_names import Refusal
from twitter_pipeline.store.tokens import TokenState
from twitter_pipeline.words import AlertKind, TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.problems import one_line

Key = tuple[AlertKind, str]
"""A kind and its subject: of each at most one alert is open."""

ALL_TOKENS = "tokens"

LINES_POSTED = 30
"""A weekly check may find hundreds of accounts gone; Slack cuts a text at 40,000 characters."""

NEWS_POSTED = 200

_RENEWED = frozenset({AlertKind.TOKEN_OUT_OF_USE, AlertKind.ACCOUNT_GONE})
"""Where another `since` is another state, as of a token that was capped and is revoked now. Elsewhere the trouble goes
on, and `since` is when it was seen again."""

_GONE = {
    Availability.PROTECTED: "is protected",
    Availability.SUSPENDED: "is suspended",
    Availability.NOT_FOUND: "is not found any more",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that somebody should know of. `subject` is for programs, `called` is the same for a person.

    One that does not last is an event: it has happened once and for all, and nobody is told that it is over.
    """

    kind: AlertKind
    subject: str
    called: str
    since: datetime
    message: str
    lasts: bool = True

    @property
    def key(self) -> Key:
        """What at most one alert is open of."""
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look has found: troubles, and what is known to be well.

    An alert whose subject is in neither is moot, as that of an account that nobody tracks any more.
    """

    troubles: tuple[Trouble, ...] = ()
    well: frozenset[Key] = frozenset()

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(self.troubles + other.troubles, self.well | other.well)


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that was made and is not closed."""

    id: int
    kind: AlertKind
    subject: str
    called: str
    since: datetime

    @property
    def key(self) -> Key:
        """What at most one alert is open of."""
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look has changed. `ended` are told with these messages; `moot` are closed without a word."""

    begun: tuple[Trouble, ...] = ()
    ended: Mapping[int, str] = field(default_factory=dict[int, str])
    moot: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """One message that is still to be posted: that a trouble has begun, or that it is over."""

    alert_id: int
    kind: AlertKind
    subject: str
    called: str
    since: datetime
    message: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class TrackedAccount:
    """A tracked account and whether it can be read."""

    user_id: int
    username: str | None
    availability: Availability
    reason: str | None
    since: datetime

    @property
    def called(self) -> str:
        """What to call it: by its name, or by its id while it has none."""
        return f"id {self.user_id}" if self.username is None else f"@{self.username}"


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """What a check of the watch found last."""

    name: str
    asset: str
    passed: bool
    said: str
    at: datetime


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed, when, and what its error says."""

    run_id: str
    job: str
    at: datetime
    error: str


def plan_changes(findings: Findings, open_alerts: Iterable[OpenAlert], *, now: datetime) -> Changes:
    """Decide which alerts begin, which are over, and which are moot; the same findings again change nothing."""
    known = {alert.key: alert for alert in open_alerts}
    lasting = {trouble.key: trouble for trouble in findings.troubles if trouble.lasts}
    begun = [each for each in findings.troubles if not each.lasts or not _goes_on(known.get(each.key), each)]
    closed = [alert for key, alert in known.items() if not _goes_on(alert, lasting.get(key))]
    over = {alert.id: end_message(alert, now) for alert in closed if alert.key in findings.well}
    return Changes(tuple(begun), over, tuple(alert.id for alert in closed if alert.id not in over))


def _goes_on(alert: OpenAlert | None, trouble: Trouble | None) -> bool:
    if alert is None or trouble is None:
        return False
    return alert.kind not in _RENEWED or alert.since == trouble.since


def judge_tokens(states: Sequence[TokenState], env_keys: Collection[str]) -> Findings:
    """Find the tokens of this environment that are out of use, and whether one is left."""
    here = [each for each in states if each.env_key in env_keys]
    out = [each for each in here if each.out_of_use]
    well = frozenset((AlertKind.TOKEN_OUT_OF_USE, each.env_key) for each in here if each.status is TokenStatus.ACTIVE)
    troubles = [_token_trouble(each) for each in out]
    if not out or len(out) < len(env_keys):
        return Findings(tuple(troubles), well | {(AlertKind.NO_TOKEN_LEFT, ALL_TOKENS)})
    return Findings((*troubles, _no_token_left(out)), well)


def _token_trouble(token: TokenState) -> Trouble:
    until = "" if token.until is None else f", tested again after {_instant(token.until)}"
    return Trouble(
        AlertKind.TOKEN_OUT_OF_USE,
        token.env_key,
        token.env_key,
        token.since,
        f"Token {token.env_key} is {token.status} since {_instant(token.since)}{until}: {_brief(token.reason or '')}. "
        f"To do: {MEND_TOKEN[token.status]}",
    )


def _no_token_left(out: Sequence[TokenState]) -> Trouble:
    since = max(each.since for each in out)
    until = min((each.until for each in out if each.until is not None), default=None)
    tried = "" if until is None else f" The first is tried again at {_instant(until)}."
    return Trouble(
        AlertKind.NO_TOKEN_LEFT,
        ALL_TOKENS,
        "all tokens",
        since,
        f"No token is left since {_instant(since)}: {_all(len(out))} out of use, so nothing is fetched. What was "
        f"fetched is stored.{tried} To do: mend or add one in .env, then: twitter-pipeline tokens check",
    )


def _all(tokens: int) -> str:
    return "the only one is" if tokens == 1 else f"all {tokens:,} of this environment are"


def judge_refusals(windows: Iterable[Window], env_keys: Iterable[str]) -> Findings:
    """Find where X has refused calls of the tokens of this environment and has answered none since."""
    refused = {(each.env_key, each.endpoint): each for each in windows if each.refused_since is not None}
    troubles: list[Trouble] = []
    well: set[Key] = set()
    for env_key, endpoint in product(env_keys, Endpoint):
        subject = f"{endpoint} with {env_key}"
        window = refused.get((env_key, endpoint))
        if window is None or window.refused_since is None:
            well.add((AlertKind.CALLS_REFUSED, subject))
        else:
            troubles.append(_refusal_trouble(window, subject, window.refused_since))
    return Findings(tuple(troubles), frozenset(well))


def _refusal_trouble(window: Window, subject: str, since: datetime) -> Trouble:
    until = "" if window.paused_until is None else f" until {window.paused_until.astimezone(UTC):%H:%M:%S} UTC"
    return Trouble(
        AlertKind.CALLS_REFUSED,
        subject,
        f"calls of {subject}",
        since,
        f"X refuses calls of {window.endpoint} to {window.env_key} (429) since {_instant(since)}: nothing is sent with "
        f"it there{until}, then one call finds out. Other tokens go on. To do: nothing, unless it lasts; then see "
        "whether another program uses the token",
    )


def judge_accounts(accounts: Iterable[TrackedAccount]) -> Findings:
    """Find the tracked accounts that cannot be read."""
    troubles: list[Trouble] = []
    well: set[Key] = set()
    for each in accounts:
        if each.availability is Availability.ACTIVE:
            well.add((AlertKind.ACCOUNT_GONE, str(each.user_id)))
        else:
            troubles.append(_account_trouble(each))
    return Findings(tuple(troubles), frozenset(well))


def _account_trouble(account: TrackedAccount) -> Trouble:
    why = f" ({_brief(account.reason)})" if account.reason else ""
    untrack = "" if account.username is None else f" To stop: twitter-pipeline untrack {account.username}"
    return Trouble(
        AlertKind.ACCOUNT_GONE,
        str(account.user_id),
        account.called,
        account.since,
        f"The tracked account {account.called} {_GONE[account.availability]} since {_instant(account.since)}{why}. "
        f"It is looked at ever more rarely and polled again when it is back; what is stored stays.{untrack}",
    )


def judge_budgets(spent: Iterable[Spent], budgets: Budgets, prices: Prices, *, wanted: Cost) -> Findings:
    """Find the budgets that have no room for so much more, as the watch judges when it steps aside.

    That of a run is reached by runs alone, whose failure says so.
    """
    troubles: list[Trouble] = []
    well: set[Key] = set()
    for each in spent:
        if budgets.limit(each.period).allows(each.billed + wanted, prices):
            well.add((AlertKind.BUDGET_REACHED, each.period.value))
        else:
            troubles.append(_budget_trouble(each, describe_used_up(each, budgets, prices, wanted=wanted)))
    return Findings(tuple(troubles), frozenset(well))


def _budget_trouble(spent: Spent, said: str) -> Trouble:
    return Trouble(
        AlertKind.BUDGET_REACHED,
        spent.period.value,
        f"the budget of the {spent.period}",
        spent.now,
        f"{said[0].upper()}{said[1:]}, seen at {_instant(spent.now)}. Runs stop there, what was fetched is "
        "stored, and the watch goes on by itself. "
        f"To do: wait, or raise TWITTER_BUDGET_{spent.period.name}_USD or _POSTS in .env",
    )


def judge_names(refusals: Iterable[Refusal], alerted: Iterable[str]) -> Findings:
    """Find what X does not know of that which is requested, and which of the names `alerted` it takes again."""
    by_name: dict[str, list[Refusal]] = {}
    for each in refusals:
        by_name.setdefault(str(each.name), []).append(each)
    troubles = [_name_trouble(name, each, by_name) for name, each in by_name.items()]
    well = frozenset((AlertKind.NAME_REFUSED, name) for name in alerted if name not in by_name)
    return Findings(tuple(troubles), well)


def _name_trouble(name: str, refusals: Sequence[Refusal], by_name: Mapping[str, Sequence[Refusal]]) -> Trouble:
    since = min(each.refused_at for each in refusals)
    where = ", ".join(sorted(each.endpoint for each in refusals))
    newer = refusals[0].name.newer
    instead = newer is not None and {each.endpoint for each in by_name.get(str(newer), ())}.isdisjoint(
        each.endpoint for each in refusals
    )
    return Trouble(
        AlertKind.NAME_REFUSED,
        name,
        name,
        since,
        f"X does not know {name} since {_instant(since)}, at {where}. "
        + (f"{newer} is requested in its place" if instead else "Requests go without, so what it brings is not stored")
        + f"; it is tried again at {_instant(min(each.again_at for each in refusals))}. "
        "To do: look for a newer version of this program",
    )


def judge_watch(checks: Iterable[CheckFinding]) -> Findings:
    """Find whether the promise of monitoring is broken, by what its checks found last."""
    troubles: list[Trouble] = []
    well: set[Key] = set()
    for each in checks:
        if each.passed:
            well.add((AlertKind.PROMISE_BROKEN, each.name))
        else:
            troubles.append(_promise_trouble(each))
    return Findings(tuple(troubles), frozenset(well))


def _promise_trouble(check: CheckFinding) -> Trouble:
    return Trouble(
        AlertKind.PROMISE_BROKEN,
        check.name,
        f"the check {check.name}",
        check.at,
        f"The promise of monitoring is broken, seen at {_instant(check.at)}: {_brief(check.said)}. To do: see the "
        f"check {check.name} of the asset {check.asset} in the Dagster UI, and the sensor tracked_users_sensor",
    )


def judge_runs(failed: Iterable[FailedRun], latest_of_jobs: Mapping[str, FailedRun | None]) -> Findings:
    """Find the runs of people that failed, each of which is told, and the jobs that fail by themselves.

    Those jobs a sensor or a schedule starts again and again: of each the latest run counts, None if it succeeded.
    """
    failing = [_job_trouble(run) for run in latest_of_jobs.values() if run is not None]
    well = frozenset((AlertKind.RUN_FAILED, job) for job, run in latest_of_jobs.items() if run is None)
    return Findings((*map(_run_trouble, failed), *failing), well)


def _run_trouble(run: FailedRun) -> Trouble:
    name = f"run {run.run_id[:8]} of {run.job}"
    return Trouble(
        AlertKind.RUN_FAILED,
        run.run_id,
        name,
        run.at,
        f"The {name} failed at {_instant(run.at)}: {_brief(run.error)}. What was fetched is stored. To do: see the "
        "run in the Dagster UI, or twitter-pipeline runs, and start it again: only what is missing is fetched",
        lasts=False,
    )


def _job_trouble(run: FailedRun) -> Trouble:
    return Trouble(
        AlertKind.RUN_FAILED,
        run.job,
        f"the job {run.job}",
        run.at,
        f"The job {run.job}, which starts by itself, fails since {_instant(run.at)}: {_brief(run.error)}. What was "
        f"fetched is stored. To do: see run {run.run_id[:8]} in the Dagster UI; it is told when a run succeeds",
    )


def end_message(alert: OpenAlert, now: datetime) -> str:
    """Say that a trouble is over."""
    spell = f"from {_instant(alert.since)} to {_instant(now)}"
    match alert.kind:
        case AlertKind.TOKEN_OUT_OF_USE:
            return f"Token {alert.called} works again; it was out of use {spell}"
        case AlertKind.NO_TOKEN_LEFT:
            return f"A token works again; there was none {spell}"
        case AlertKind.CALLS_REFUSED:
            return f"X answers {alert.called} again; it refused them {spell}"
        case AlertKind.BUDGET_REACHED:
            return f"There is budget again: {alert.called} was used up {spell}"
        case AlertKind.PROMISE_BROKEN:
            return f"The promise of monitoring is kept again, says {alert.called}; it was broken {spell}"
        case AlertKind.ACCOUNT_GONE:
            return f"The tracked account {alert.called} can be read again; it could not {spell}"
        case AlertKind.NAME_REFUSED:
            return f"X takes {alert.called} again; it did not {spell}"
        case AlertKind.RUN_FAILED:
            return f"A run of {alert.called} has succeeded; runs failed {spell}"


def payload_of(news: Sequence[News], *, made_up: bool) -> dict[str, Any]:
    """Return what is posted: `text` for receivers that take Slack's format, and the same as fields for programs.

    Of very many messages the text has the first LINES_POSTED and the fields the first NEWS_POSTED.
    """
    lines = [each.message for each in news[:LINES_POSTED]]
    if len(news) > LINES_POSTED:
        lines.append(f"... and {len(news) - LINES_POSTED:,} more: twitter-pipeline alerts")
    if made_up:
        lines.insert(0, "(Accounts and tweets are made up by the sandbox.)")
    return {
        "text": "\n".join(map(_escaped, lines)),
        "source": "twitter_pipeline",
        "made_up": made_up,
        "count": len(news),
        "alerts": [
            {
                "kind": each.kind.value,
                "subject": each.subject,
                "called": each.called,
                "since": each.since.astimezone(UTC).isoformat(),
                "is_over": each.is_over,
                "message": each.message,
            }
            for each in news[:NEWS_POSTED]
        ],
    }


def _instant(at: datetime) -> str:
    """Return an instant to the minute, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _brief(text: str) -> str:
    """Return the first line of a text from anywhere, cut to the length of a message and without a stop at its end."""
    return one_line(text.strip().partition("\n")[0]).rstrip(".: ") or "no reason was given"


def _escaped(text: str) -> str:
    """Return text that Slack shows as it is: these three begin its links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
