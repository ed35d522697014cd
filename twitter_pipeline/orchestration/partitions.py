"""The partitions of backfills: months, and tracked accounts; which of them a run is for."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import dagster as dg

# The tags by which Dagster tells a run its partitions; it has no public names for them.
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.months import FIRST_MONTH, Months, read_month

MONTHS: Final = dg.MonthlyPartitionsDefinition(
    start_date=f"{FIRST_MONTH:%Y-%m}",
    fmt="%Y-%m",
    # The month that it is counts too; it is whole up to now.
    end_offset=1,
)

ACCOUNTS_NAME: Final = "tracked_accounts"
ACCOUNTS: Final = dg.DynamicPartitionsDefinition(name=ACCOUNTS_NAME)

BY_MONTH: Final = dg.AssetKey("tweets_by_month")
BY_ACCOUNT: Final = dg.AssetKey("tweets_by_account")


def range_of(run: dg.DagsterRun) -> dg.PartitionKeyRange:
    """Return the partitions of a run, which always follow each other: of others Dagster makes several runs."""
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG) or run.tags.get(PARTITION_NAME_TAG)
    last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG) or first
    if first is None or last is None:
        raise ConfigurationError("A backfill needs partitions: choose months or accounts.")
    return dg.PartitionKeyRange(first, last)


def tags_of(months: Months) -> dict[str, str]:
    """Return the tags of a run that is for these months."""
    return {
        ASSET_PARTITION_RANGE_START_TAG: f"{months.first:%Y-%m}",
        ASSET_PARTITION_RANGE_END_TAG: f"{months.last:%Y-%m}",
    }


def months_of(run: dg.DagsterRun) -> Months:
    """Return the months that a run is for."""
    chosen = range_of(run)
    return Months(read_month(chosen.start), read_month(chosen.end))


def account_keys_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Mapping[int, str]:
    """Return the keys of the accounts that a run is for, by their ids."""
    chosen = range_of(run)
    known = list(instance.get_dynamic_partitions(ACCOUNTS_NAME))
    gone = [key for key in (chosen.start, chosen.end) if key not in known]
    if gone:
        raise ConfigurationError(f"{' and '.join(gone)}: not on the watch list any more; choose the accounts again.")
    return {user_id_of(key): key for key in known[known.index(chosen.start) : known.index(chosen.end) + 1]}


def key_of(user_id: int, username: str | None) -> str:
    """Return the key of an account: its id, which stays, and a name to find it by, which stays as it was."""
    return f"{user_id} @{username}" if username else str(user_id)


def user_id_of(key: str) -> int:
    """Return the id of the account that a key is for."""
    return int(key.partition(" ")[0])


def steps_to(tracked: Iterable[tuple[int, str | None]], known: Collection[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the keys to add and to delete, so that those that are known become those of the watch list.

    An account keeps its key, whatever it is called now: what was materialized under it would be lost.
    """
    keys = {user_id_of(key): key for key in known}
    wanted = dict(tracked)
    added = [key_of(user_id, username) for user_id, username in wanted.items() if user_id not in keys]
    return added, [key for user_id, key in keys.items() if user_id not in wanted]
