"""What the calls have cost, as the page of the asset `costs` shows it: by day and kind of run, account and run.

The sensor of the tokens shows it once a UTC day, the job `show_costs` at once. It is kept for good, so not more often.
"""

from datetime import UTC, datetime, time, timedelta

import dagster as dg

from twitter_pipeline.budgets import Cost, dollars
from twitter_pipeline.charts.costs import draw_costs_by_account, draw_costs_by_day, draw_costs_by_run
from twitter_pipeline.orchestration.images import image_of
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import GROUP, api_calls
from twitter_pipeline.store.charts import load_costs_by_account, load_costs_by_day, load_costs_by_run
from twitter_pipeline.store.costs import By, CostLine, load_costs, load_unknown
from twitter_pipeline.store.spending import count_spending, load_spent

DAYS = 30

# An asset of its own: each poll adds to those of the tables, and what was paid would soon be far down.
costs = dg.AssetSpec(
    "costs",
    deps=[api_calls],
    group_name=GROUP,
    kinds={"postgres"},
    description="What the calls of the last 30 days have cost; the job `show_costs` brings it up to date.",
)

_KINDS = dg.TableSchema(
    columns=[
        dg.TableColumn("kind", "string", description="of the runs that sent the calls"),
        dg.TableColumn("calls", "int"),
        dg.TableColumn("posts", "int", description="billed"),
        dg.TableColumn("profiles", "int", description="billed"),
        dg.TableColumn("cost (USD)", "float"),
    ]
)


def observe_costs(opened: OpenDatabase, now: datetime) -> dg.AssetObservation | None:
    """Return what there is to see of the last 30 UTC days; None when nothing was billed in them."""
    database, prices = opened.database, opened.settings.prices
    since = datetime.combine(now.astimezone(UTC).date() - timedelta(days=DAYS - 1), time(), tzinfo=UTC)
    kinds = load_costs(database, By.KIND, since=since, prices=prices)
    total = sum((each.cost for each in kinds), Cost()).usd(prices)
    unknown = load_unknown(database, since=since)
    if not total and not unknown.calls:
        return None
    pictures = {
        "cost by day": draw_costs_by_day(load_costs_by_day(database, since=since, prices=prices)),
        "cost by account": draw_costs_by_account(load_costs_by_account(database, since=since, prices=prices)),
        "cost by run": draw_costs_by_run(load_costs_by_run(database)),
    }
    return dg.AssetObservation(
        costs.key,
        description=f"{dollars(total)} since {since:%Y-%m-%d}, by the prices of the settings.",
        metadata={
            **{name: image_of(png, name) for name, png in pictures.items() if png is not None},
            "cost by kind": dg.MetadataValue.table([_record(each, opened) for each in kinds], schema=_KINDS),
            **({"unknown": dg.MetadataValue.text(unknown.describe(prices))} if unknown.calls else {}),
            **_budgets(opened),
            f"cost of {DAYS} days (USD)": dg.MetadataValue.float(float(total)),
        },
    )


def _record(line: CostLine, opened: OpenDatabase) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "kind": line.key,
            "calls": line.calls,
            "posts": line.cost.posts,
            "profiles": line.cost.users,
            "cost (USD)": float(line.cost.usd(opened.settings.prices)),
        }
    )


def _budgets(opened: OpenDatabase) -> dict[str, dg.MetadataValue]:
    """Return how much is spent of the budgets of day and month, where they are set."""
    budgets, prices = opened.settings.budgets, opened.settings.prices
    count_spending(opened.database, budgets)
    return {
        f"budget of the {each.period}": dg.MetadataValue.text(budgets.limit(each.period).describe(each.billed, prices))
        for each in load_spent(opened.database, budgets)
    }


@dg.op(description="Show what the calls of the last 30 days have cost, by day, kind of run, account and run.")
def show_all_costs(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Show, as the step's metadata and on the page of the asset `costs`."""
    observation = observe_costs(database, datetime.now(UTC))
    if observation is None:
        context.log.info(f"Nothing was billed in the last {DAYS} days.")
        return
    context.log_event(observation)
    context.log.info(str(observation.description))
    context.add_output_metadata(dict(observation.metadata))


@dg.job(
    executor_def=dg.in_process_executor,
    description=(
        "Show what the calls of the last 30 days have cost, by day and kind of run, account and run, as charts, and "
        "what is spent of the budgets. Sends no call."
    ),
)
def show_costs() -> None:
    """Show."""
    show_all_costs()
