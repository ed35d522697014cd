"""The token page: every token, what is left of its limits and what it was used for, on the asset `tokens`.

A sensor shows them again when a token dies or a window is used up, and every ten minutes while calls are sent; the job
`show_tokens` does at once, with the chart of their use. What the sensor shows is kept for good, so it has no chart.
Once a UTC day it shows also what the calls have cost, on the asset `costs`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from twitter_pipeline.charts.tokens import draw_token_use
from twitter_pipeline.orchestration.costs_page import observe_costs
from twitter_pipeline.orchestration.images import image_of
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import tokens
from twitter_pipeline.store.activity import UseOfDay, Window, load_all_windows, load_last_call, load_use_of_day
from twitter_pipeline.store.charts import load_token_use
from twitter_pipeline.store.tokens import TokenState, load_tokens
from twitter_pipeline.texts import as_code
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

# A page has room for some 100 characters in a row.
_TOKENS = dg.TableSchema(
    columns=[
        dg.TableColumn("token", "string"),
        dg.TableColumn("status", "string"),
        dg.TableColumn("since (UTC)", "string"),
        dg.TableColumn("until (UTC)", "string"),
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
        dg.TableColumn("24 hours", "string", description="what is left of a daily limit, which few endpoints have"),
    ]
)

_USE = dg.TableSchema(
    columns=[
        dg.TableColumn("token", "string"),
        dg.TableColumn("endpoint", "string"),
        dg.TableColumn("calls", "int"),
        dg.TableColumn("refused", "int", description="answered 429"),
        dg.TableColumn("failed", "int", description="without an answer to use"),
        dg.TableColumn("billed posts", "int"),
    ]
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sensor has shown last: the picture, when, which call was the last one then, and the day of the costs."""

    picture: Picture
    at: float
    last_call: int
    costs_of: str | None = None


def observe_tokens(opened: OpenDatabase, *, with_chart: bool) -> dg.AssetObservation:
    """Return what there is to see of the tokens, their limits and their use."""
    database, here = opened.database, opened.settings.bearer_tokens
    states, windows, use = load_tokens(database), load_all_windows(database), load_use_of_day(database)
    # X's words are among them, and what Dagster shows is Markdown.
    lines = [as_code(line) for line in explain(states, windows)]
    chart = draw_token_use(load_token_use(database, [each.env_key for each in states])) if with_chart else None
    unfit = {each.env_key: each.status.value for each in states if each.status is not TokenStatus.ACTIVE}
    metadata: dict[str, dg.MetadataValue] = {
        "what holds work up": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines)),
        "tokens": dg.MetadataValue.table(
            [_token_row(each, remarks(each, here)) for each in states[:ROWS_SHOWN]], schema=_TOKENS
        ),
        "limits": dg.MetadataValue.table(
            [_limit_row(each, unfit.get(each.env_key)) for each in windows[:ROWS_SHOWN]], schema=_LIMITS
        ),
        "use of the last day": dg.MetadataValue.table([_use_row(each) for each in use[:ROWS_SHOWN]], schema=_USE),
        **({"chart of the last day": image_of(chart, "chart of the last day")} if chart else {}),
        **_numbers(states, sum(used_by_token(use).values(), Used())),
    }
    return dg.AssetObservation(tokens.key, description=lines[0], metadata=metadata)


def _numbers(states: Sequence[TokenState], of_day: Used) -> dict[str, dg.MetadataValue]:
    active = sum(each.status is TokenStatus.ACTIVE for each in states)
    return {
        "active": dg.MetadataValue.int(active),
        "not active": dg.MetadataValue.int(len(states) - active),
        "calls, last day": dg.MetadataValue.int(of_day.calls),
        "refused, last day": dg.MetadataValue.int(of_day.refused),
        "billed posts, last day": dg.MetadataValue.int(of_day.billed_posts),
    }


def _token_row(token: TokenState, reason: str) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "token": token.env_key,
            "status": token.status.value,
            "since (UTC)": _instant(token.since),
            "until (UTC)": _instant(token.until),
            "reason": reason,
        }
    )


def _limit_row(window: Window, unfit: str | None) -> dg.TableRecord:
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
            "resets (UTC)": "" if frees is None else _reset(frees, window.now),
            "24 hours": "" if day_left is None else f"{day_left:,} of {window.day_limit or 0:,}",
        }
    )


def _use_row(use: UseOfDay) -> dg.TableRecord:
    of_day = used(use)
    return dg.TableRecord(
        {
            "token": use.env_key,
            "endpoint": use.endpoint,
            "calls": of_day.calls,
            "refused": of_day.refused,
            "failed": of_day.failed,
            "billed posts": of_day.billed_posts,
        }
    )


def _reset(at: datetime, now: datetime) -> str:
    """Return the time of a reset, with its date unless that is today."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S}" if at.date() == now.astimezone(UTC).date() else f"{at:%Y-%m-%d %H:%M:%S}"


def _is_open(window: Window) -> bool:
    return window.reset_at is not None and window.reset_at > window.now


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _instant(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


@dg.op(description="Show every token: status, what is left of its limits, and its use of the last day, with a chart.")
def show_all_tokens(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Show, as the step's metadata and on the page of the asset `tokens`."""
    observation = observe_tokens(database, with_chart=True)
    context.log_event(observation)
    context.log.info(str(observation.description))
    context.add_output_metadata(dict(observation.metadata))


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
        "Shows the tokens on the page of the asset `tokens`: at once when a token dies or a limit is used up, and "
        "every ten minutes while calls are sent. Once a day it also shows what calls have cost, on the page of `costs`."
    ),
)
def tokens_sensor(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]
) -> dg.SensorResult | dg.SkipReason:
    """Show in the tick: a run would be a process for a few queries."""
    opened, at = database.database, datetime.now(UTC)
    states, windows = load_tokens(opened), load_all_windows(opened)
    before = read_cursor(context.cursor)
    costs_of = None if before is None else before.costs_of
    now = Seen(picture_of(states, windows), at.timestamp(), load_last_call(opened), costs_of)
    if not is_worth_showing(before, now):
        return dg.SkipReason("nothing has changed, or the tokens were shown lately")
    seen = [observe_tokens(database, with_chart=False)]
    said, today = str(seen[0].description), at.date().isoformat()
    if costs_of != today and (costs := observe_costs(database, at)) is not None:
        seen.append(costs)
        now = replace(now, costs_of=today)
    return dg.SensorResult(asset_events=seen, skip_reason=said, cursor=json.dumps(asdict(now)))


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
