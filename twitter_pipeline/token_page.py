"""What is known of the tokens -> why work is slow, and whether that has changed; what pages and commands show of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from twitter_pipeline.settings import is_of_sandbox
from twitter_pipeline.store.activity import UseOfDay, Window
from twitter_pipeline.store.tokens import TokenState
from twitter_pipeline.texts import counted
from twitter_pipeline.words import TokenStatus

Picture = list[str]
"""Which tokens are out of use, and which windows are used up: what a person would see at a glance."""


@dataclass(frozen=True, slots=True)
class Used:
    """What was sent in the last day: `refused` calls were answered 429, `failed` ones gave no answer to use."""

    calls: int = 0
    refused: int = 0
    failed: int = 0
    billed_posts: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.calls + other.calls,
            self.refused + other.refused,
            self.failed + other.failed,
            self.billed_posts + other.billed_posts,
        )


def is_refused(window: Window) -> bool:
    """Whether X refuses calls, and nothing is sent for a while."""
    return window.refused_since is not None and window.paused_until is not None and window.paused_until > window.now


def is_used_up(window: Window) -> bool:
    """Whether no call can be sent before a pause ends or the window resets, of 15 minutes or of a day."""
    return is_refused(window) or any(
        reset_at is not None and reset_at > window.now and left is not None and left <= window.in_flight
        for left, reset_at in (
            (window.remaining, window.reset_at),
            (window.day_remaining, window.day_reset_at),
        )
    )


def free_at(window: Window) -> datetime | None:
    """Return when a call may be sent again where none may be now."""
    if is_refused(window):
        return window.paused_until
    is_of_the_day = window.day_remaining is not None and window.day_remaining <= window.in_flight
    return window.day_reset_at if is_of_the_day and window.day_reset_at else window.reset_at


def picture_of(states: Iterable[TokenState], windows: Iterable[Window]) -> Picture:
    """Return what has to change before it is worth to show the tokens again at once."""
    out = [f"{each.env_key} {each.status}" for each in states if each.status is not TokenStatus.ACTIVE]
    return out + [f"{each.env_key} {each.endpoint}" for each in windows if is_used_up(each)]


def explain(states: Sequence[TokenState], windows: Sequence[Window]) -> list[str]:
    """Say in lines, the gravest first, why work is slow or stands still; or that nothing holds it up."""
    out = [each for each in states if each.status is not TokenStatus.ACTIVE]
    active = {each.env_key for each in states if each.status is TokenStatus.ACTIVE}
    lines: list[str] = []
    if states and all(each.out_of_use for each in states):
        lines.append("Nothing can be fetched: no token is fit for use.")
    lines += [str(each) for each in out]
    for endpoint, of_endpoint in _by_endpoint(each for each in windows if each.env_key in active).items():
        used_up = [each for each in of_endpoint if is_used_up(each)]
        if not used_up:
            continue
        frees = min((at for each in used_up if (at := free_at(each)) is not None), default=None)
        until = "" if frees is None else f" until {frees.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        refused = [each for each in used_up if is_refused(each)]
        if refused:
            names = ", ".join(f"{each.env_key} since {_clock(each.refused_since)}" for each in refused)
            ends = min(each.paused_until for each in refused if each.paused_until is not None)
            lines.append(
                f"X refuses calls of {endpoint} to {names}: nothing is sent with it there until {_clock(ends)}."
            )
        elif len(used_up) == len(active):
            lines.append(
                f"Work waits at {endpoint}: the limits of all {counted(len(active), 'token')} are used up{until}."
            )
        else:
            lines.append(f"{endpoint}: used up for {len(used_up):,} of {counted(len(active), 'token')}{until}.")
    return lines or ["No token holds work up." if states else "No token is known yet."]


def _clock(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _by_endpoint(windows: Iterable[Window]) -> Mapping[str, list[Window]]:
    found: dict[str, list[Window]] = {}
    for each in windows:
        found.setdefault(each.endpoint, []).append(each)
    return found


def used_by_token(use: Iterable[UseOfDay]) -> dict[str, Used]:
    """Return what each token was used for in the last day, over all endpoints."""
    found: dict[str, Used] = {}
    for each in use:
        found[each.env_key] = found.get(each.env_key, Used()) + used(each)
    return found


def used(use: UseOfDay) -> Used:
    """Return the numbers of a token at an endpoint."""
    return Used(use.calls, use.refused, use.failed, use.billed_posts)


def remarks(token: TokenState, here: Collection[str]) -> str:
    """Say what there is to say of a token: why it is out of use, and whether this environment has its secret."""
    # The sandbox makes its tokens when it starts.
    elsewhere = token.env_key not in here and not is_of_sandbox(token.env_key)
    return "; ".join(filter(None, [token.reason or "", "not in this environment" if elsewhere else ""]))
