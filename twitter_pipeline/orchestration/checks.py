"""The checks in Dagster: whether all is well, judged every hour in the tick of a sensor, and when a person asks for it.

They warn, as the pipeline goes on and what is missing stays known; where nothing goes on any more, for want of tokens
or of polls, they are errors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import dagster as dg

from twitter_pipeline.health import (
    Cell,
    Verdict,
    judge_counts,
    judge_holes,
    judge_partitions,
    judge_tokens,
    judge_watch,
    longest_interval,
    name_of,
)
from twitter_pipeline.ledger import Ledger
from twitter_pipeline.orchestration.promise import check_promise, stored_within_the_promise
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import tokens, tweets, user_state
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.partitions import count_ahead
from twitter_pipeline.store.tokens import load_tokens

CHECKED_EVERY_S = 3600
ROWS_SHOWN = 50


class Examined:
    """What is stored, as checks that are made together see it: the ledgers are loaded once."""

    def __init__(self, opened: OpenDatabase) -> None:
        self.opened = opened
        self.now = datetime.now(UTC)

    @cached_property
    def ledgers(self) -> Sequence[Ledger]:
        """The ledgers of all accounts."""
        return load_ledgers(self.opened.database)


@dataclass(frozen=True, slots=True)
class Check:
    """A check of an asset: its name is the claim that it holds."""

    asset: dg.AssetSpec
    name: str
    description: str
    judge: Callable[[Examined], Verdict]

    def result(self, examined: Examined) -> dg.AssetCheckResult:
        """Judge, and render what was found."""
        verdict = self.judge(examined)
        return dg.AssetCheckResult(
            passed=verdict.passed,
            asset_key=self.asset.key,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.ERROR if verdict.is_grave else dg.AssetCheckSeverity.WARN,
            description=verdict.said,
            metadata={
                "found": dg.MetadataValue.int(len(verdict.offenders)),
                **({"to mend": table_of(verdict.offenders)} if verdict.offenders else {}),
            },
        )

    def definition(self) -> dg.AssetChecksDefinition:
        """Return the check as a person runs it; the sensor checks by itself."""

        @dg.asset_check(asset=self.asset.key, name=self.name, description=self.description)
        def check(database: dg.ResourceParam[OpenDatabase]) -> dg.AssetCheckResult:
            return self.result(Examined(database))

        return check


def _judge_watch(examined: Examined) -> Verdict:
    opened = examined.opened
    tracked = sum(ledger.account.is_tracked for ledger in examined.ledgers)
    longest = longest_interval(opened.database, opened.settings, tracked=tracked)
    return judge_watch(examined.ledgers, longest=longest, now=examined.now)


def _judge_tokens(examined: Examined) -> Verdict:
    keys = list(examined.opened.settings.bearer_tokens)
    return judge_tokens(load_tokens(examined.opened.database, keys), keys)


CHECKS = (
    Check(
        user_state,
        "no_old_hole_inside_a_history",
        "No tracked account has a hole inside its history that is older than a day.",
        lambda examined: judge_holes(examined.ledgers, now=examined.now),
    ),
    Check(
        tweets,
        "counts_agree",
        "Of accounts that were fetched in full as many tweets are stored as X counts, but for what deletions explain: "
        "a tenth.",
        lambda examined: judge_counts(examined.ledgers),
    ),
    Check(
        user_state,
        "every_tracked_account_seen_lately",
        "Every tracked account that can be read was looked at within the longest interval and an hour. An error when "
        "none was: the watch stands still.",
        _judge_watch,
    ),
    Check(
        tokens,
        "all_tokens_fit_for_use",
        "Every token of this environment is fit for use. An error when none is.",
        _judge_tokens,
    ),
    Check(
        tweets,
        "partitions_made_ahead",
        "The next two years of `tweets` and the next two months of `api_calls` have their partitions.",
        lambda examined: judge_partitions(count_ahead(examined.opened.database)),
    ),
)

asset_checks = [stored_within_the_promise, *(check.definition() for check in CHECKS)]


@dg.sensor(
    minimum_interval_seconds=CHECKED_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes all checks once an hour, and writes the ledger of the accounts to the asset `user_state`.",
)
def checks_sensor(database: dg.ResourceParam[OpenDatabase]) -> dg.SensorResult:
    """Check in the tick: a run would be a process for a few queries."""
    examined = Examined(database)
    results = [check_promise(database), *(check.result(examined) for check in CHECKS)]
    failed = [str(result.check_name) for result in results if not result.passed]
    return dg.SensorResult(
        asset_events=[*map(_evaluation, results), observe_ledger(examined.ledgers)],
        skip_reason=f"failed: {', '.join(failed)}" if failed else f"all {len(results)} checks passed",
    )


def observe_ledger(ledgers: Sequence[Ledger]) -> dg.AssetObservation:
    """Return the ledger of all accounts as numbers, which the UI plots, and a table of those that lack most."""
    worst = sorted((each for each in ledgers if each.holes), key=_missing, reverse=True)
    return dg.AssetObservation(
        user_state.key,
        description="The ledger: what is kept of the accounts, and what is missing.",
        metadata={
            "accounts": dg.MetadataValue.int(len(ledgers)),
            "accounts with holes": dg.MetadataValue.int(len(worst)),
            "tweets kept": dg.MetadataValue.int(sum(each.account.tweets_stored for each in ledgers)),
            "tweets probably missing": dg.MetadataValue.int(sum(map(_missing, worst))),
            **({"ledger": table_of([_row(each) for each in worst[:ROWS_SHOWN]])} if worst else {}),
        },
    )


def table_of(rows: Sequence[Mapping[str, Cell]]) -> dg.TableMetadataValue:
    """Return rows of the same columns as a table, the first ROWS_SHOWN of them."""
    columns = [dg.TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in rows[0].items()]
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(row)) for row in rows[:ROWS_SHOWN]], schema=dg.TableSchema(columns=columns)
    )


def _row(ledger: Ledger) -> Mapping[str, Cell]:
    account, holes = ledger.account, ledger.holes
    causes = dict.fromkeys(hole.why for hole in holes)
    return {
        "account": name_of(account),
        "kept": account.tweets_stored,
        "X counts": account.tweet_count,
        "holes": len(holes),
        "probably missing": ledger.missing,
        "cause": ", ".join(causes),
        "to fill": "; ".join(dict.fromkeys(hole.fill for hole in holes if hole.fill is not None)),
        "partitions": ", ".join(hole.span for hole in reversed(holes)),
    }


def _missing(ledger: Ledger) -> int:
    return ledger.missing or 0


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key or user_state.key,
        check_name=str(result.check_name),
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )
