"""The token page: every token, what is left of its limits and what it was used for, on the assets of the two tables.

A sensor shows them again when a token dies or a window is used up, and every ten minutes while calls are sent; the job
`show_tokens` does at once, with the chart of their use. What the sensor shows is kept for good, so it has no chart.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from twitter_pipeline.charts.tokens import draw_token_use
from twitter_pipeline.orchestration.images import image_of
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import tokens, tokens_endpoint_rl
from twitter_pipeline.store.activity import UseOfDay, Window, load_all_windows, load_last_call, load_use_of_day
from twitter_pipeline.store.charts import load_token_use
from twitter_pipeline.store.tokens import TokenState, load_tokens
from twitter_pipeline.token_page import (
    Picture,
    Used,
    explain,
    free_at,
    is_used_up,
    picture_of,
    remarks,
    used,
    used_by_token,
)
from twitter_pipeline.words import TokenStatus

LOOK_EVERY_S = 60

SHOWN_EVERY = timedelta(minutes=10)

ROWS_SHOWN = 200

_USE = [
    dg.TableColumn("calls", "int", description="of the last day"),
    dg.TableColumn("refused", "int", description="answered 429, of the last day"),
    dg.TableColumn("failed", "int", description="without an answer to use, of the last day"),
    dg.TableColumn("billed posts", "int", description="of the last day"),
]

_TOKENS = dg.TableSchema(
    columns=[
        dg.TableColumn("token", "string"),
        dg.TableColumn("status", "string"),
        dg.TableColumn("since (UTC)", "string"),
        dg.TableColumn("until (UTC)", "string"),
        *_USE,
        dg.TableColumn("reason", "string"),
    ]
)

_LIMITS = dg.TableSchema(
    columns=[
        dg.TableColumn("token", "string"),
        dg.TableColumn("endpoint", "string"),
        dg.TableColumn("state", "string"),
        dg.TableColumn(
            "remaining", "string", description="empty when nothing is known of the window, as after a reset"
        ),
        dg.TableColumn("limit", "string"),
        dg.TableColumn("resets (UTC)", "string"),
        dg.TableColumn("in flight", "int"),
        dg.TableColumn("24 hours", "string", description="what is left of a daily limit, which few endpoints have"),
        *_USE,
    ]
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sensor has shown last: the picture, when, and which call was the last one then."""

    picture: Picture
    at: float
    last_call: int


def observe_tokens(opened: OpenDatabase, *, with_chart: bool) -> list[dg.AssetObservation]:
    """Return what there is to see of the tokens and of their limits, one observation for each table."""
    database, here = opened.database, opened.settings.bearer_tokens
    states, windows, use = load_tokens(database), load_all_windows(database), load_use_of_day(database)
    lines = explain(states, windows)
    chart = draw_token_use(load_token_use(database, [each.env_key for each in states])) if with_chart else None
    of_token = used_by_token(use)
    metadata: dict[str, dg.MetadataValue] = {
        "what holds work up": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines)),
        "tokens": dg.MetadataValue.table(
            [_token_row(each, of_token.get(each.env_key, Used()), remarks(each, here)) for each in states[:ROWS_SHOWN]],
            schema=_TOKENS,
        ),
        **({"use of the last day": image_of(chart, "use of the last day")} if chart else {}),
        **_numbers(states, sum(of_token.values(), Used())),
    }
    return [
        dg.AssetObservation(tokens.key, description=lines[0], metadata=metadata),
        dg.AssetObservation(
            tokens_endpoint_rl.key, description=lines[0], metadata=_describe_limits(windows, use, states)
        ),
    ]


def _numbers(states: Sequence[TokenState], of_day: Used) -> dict[str, dg.MetadataValue]:
    active = sum(each.status is TokenStatus.ACTIVE for each in states)
    return {
        "active": dg.MetadataValue.int(active),
        "not active": dg.MetadataValue.int(len(states) - active),
        "calls, last day": dg.MetadataValue.int(of_day.calls),
        "refused, last day": dg.MetadataValue.int(of_day.refused),
        "billed posts, last day": dg.MetadataValue.int(of_day.billed_posts),
    }


def _describe_limits(
    windows: Sequence[Window], use: Sequence[UseOfDay], states: Sequence[TokenState]
) -> Mapping[str, dg.MetadataValue]:
    of_window = {(each.env_key, each.endpoint): used(each) for each in use}
    unfit = {each.env_key: each.status.value for each in states if each.status is not TokenStatus.ACTIVE}
    rows = [
        _limit_row(each, of_window.get((each.env_key, each.endpoint), Used()), unfit.get(each.env_key))
        for each in windows[:ROWS_SHOWN]
    ]
    left: dict[str, int] = {}
    for each in windows:
        if each.remaining is not None and _is_open(each) and each.env_key not in unfit:
            left[each.endpoint] = left.get(each.endpoint, 0) + each.remaining
    return {
        "limits": dg.MetadataValue.table(rows, schema=_LIMITS),
        **{f"calls left, {endpoint}": dg.MetadataValue.int(count) for endpoint, count in left.items()},
    }


def _token_row(token: TokenState, of_day: Used, reason: str) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "token": token.env_key,
            "status": token.status.value,
            "since (UTC)": _instant(token.since),
            "until (UTC)": _instant(token.until),
            **_use_cells(of_day),
            "reason": reason,
        }
    )


def _limit_row(window: Window, of_day: Used, unfit: str | None) -> dg.TableRecord:
    is_open = _is_open(window)
    frees = free_at(window) if is_used_up(window) else window.reset_at if is_open else None
    day_left = window.day_remaining if window.day_reset_at and window.day_reset_at > window.now else None
    return dg.TableRecord(
        {
            "token": window.env_key,
            "endpoint": window.endpoint,
            "state": unfit or ("used up" if is_used_up(window) else "free"),
            "remaining": _count(window.remaining if is_open else None),
            "limit": _count(window.limit),
            "resets (UTC)": "" if frees is None else f"{frees.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "in flight": window.in_flight,
            "24 hours": "" if day_left is None else f"{day_left:,} of {window.day_limit or 0:,}",
            **_use_cells(of_day),
        }
    )


def _use_cells(of_day: Used) -> dict[str, int]:
    return {
        "calls": of_day.calls,
        "refused": of_day.refused,
        "failed": of_day.failed,
        "billed posts": of_day.billed_posts,
    }


def _is_open(window: Window) -> bool:
    return window.reset_at is not None and window.reset_at > window.now


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _instant(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


@dg.op(description="Show every token: status, what is left of its limits, and its use of the last day, with a chart.")
def show_all_tokens(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Show, as the step's metadata and on the pages of the assets `tokens` and `tokens_endpoint_rl`."""
    observations = observe_tokens(database, with_chart=True)
    for each in observations:
        context.log_event(each)
    context.log.info(str(observations[0].description))
    context.add_output_metadata({name: value for each in observations for name, value in each.metadata.items()})


@dg.job(
    executor_def=dg.in_process_executor,
    description=(
        "Show every token as it is now: whether it is fit for use, what is left of its limits at each endpoint, what "
        "it was used for in the last day, and what holds work up. Sends no call."
    ),
)
def show_tokens() -> None:
    """Show."""
    show_all_tokens()


@dg.sensor(
    minimum_interval_seconds=LOOK_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Shows the tokens on the pages of the assets `tokens` and `tokens_endpoint_rl`: at once when a token dies or a "
        "limit is used up, and every ten minutes while calls are sent."
    ),
)
def tokens_sensor(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]
) -> dg.SensorResult | dg.SkipReason:
    """Show in the tick: a run would be a process for a few queries."""
    opened = database.database
    states, windows = load_tokens(opened), load_all_windows(opened)
    now = Seen(picture_of(states, windows), datetime.now(UTC).timestamp(), load_last_call(opened))
    if not is_worth_showing(read_cursor(context.cursor), now):
        return dg.SkipReason("nothing has changed, or the tokens were shown lately")
    observations = observe_tokens(database, with_chart=False)
    return dg.SensorResult(
        asset_events=observations, skip_reason=str(observations[0].description), cursor=json.dumps(asdict(now))
    )


def is_worth_showing(before: Seen | None, now: Seen) -> bool:
    """Whether somebody would see something new."""
    if before is None or before.picture != now.picture:
        return True
    return now.last_call != before.last_call and now.at - before.at >= SHOWN_EVERY.total_seconds()


def read_cursor(cursor: str | None) -> Seen | None:
    """Return what was shown last, None before the first time and where the cursor is not ours."""
    try:
        return None if not cursor else Seen(**json.loads(cursor))
    except (ValueError, TypeError):
        return None
