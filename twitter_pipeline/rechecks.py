"""The weekly check of tracked accounts: who was renamed, who has gone, who is back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from twitter_pipeline.accounts import WORDS_BY_ID
from twitter_pipeline.calls import Reply, XApi
from twitter_pipeline.chunks import chunks
from twitter_pipeline.errors import ApiError, Availability
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.rechecks import Tracked, make_due
from twitter_pipeline.store.users import save_availability, save_users
from twitter_pipeline.x_api.client import IDS_PER_CALL
from twitter_pipeline.x_api.json_values import as_int
from twitter_pipeline.x_api.parsing import User, UsersAnswer
from twitter_pipeline.x_api.problems import availability_of


@dataclass(slots=True)
class Recheck:
    """What a check of accounts has found, each with its name before. `failed` are errors, one for 100 accounts."""

    looked_up: int = 0
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    back: list[str] = field(default_factory=list[str])
    gone: dict[str, Availability] = field(default_factory=dict[str, Availability])
    failed: list[str] = field(default_factory=list[str])


def recheck(api: XApi, database: Database, accounts: Sequence[Tracked]) -> Recheck:
    """Look up accounts by id, 100 a call, and write what has changed; those that are back become due at once.

    A look-up that fails leaves its accounts as they are. Raises NoTokenAvailable when no token can look up.
    """
    found = Recheck()
    for chunk in chunks(accounts, IDS_PER_CALL):
        asked = {each.user_id: each for each in chunk}
        read_today = [each.user_id for each in asked.values() if _is_today(each.profile_read_at)]
        try:
            reply = api.fetch_users(list(asked), fetch_run_id=None, read_today=read_today)
        except ApiError as error:
            found.failed.append(str(error))
            continue
        found.looked_up += len(asked)
        _note(found, database, asked, reply)
    return found


def _note(found: Recheck, database: Database, asked: Mapping[int, Tracked], reply: Reply[UsersAnswer]) -> None:
    users = [user for user in reply.value.users if user.id in asked]
    save_users(database, users, read_at=reply.answered_at)
    for user in users:
        _note_user(found, asked[user.id], user)
    for problem in reply.value.problems:
        user_id, availability = as_int(problem.value or problem.resource_id), availability_of(problem)
        before = None if user_id is None else asked.get(user_id)
        if before is not None and availability is not None:
            reason = WORDS_BY_ID[availability]
            save_availability(database, before.user_id, availability, reason=reason, at=reply.answered_at)
            _note_gone(found, before, availability)
    back = [user.id for user in users if not user.protected and not asked[user.id].is_readable]
    make_due(database, back)


def _note_user(found: Recheck, before: Tracked, user: User) -> None:
    if before.username != user.username:
        found.renamed[before.called] = user.username
    if user.protected:
        _note_gone(found, before, Availability.PROTECTED)
    elif not before.is_readable:
        found.back.append(before.called)


def _note_gone(found: Recheck, before: Tracked, availability: Availability) -> None:
    if before.availability is not availability:
        found.gone[before.called] = availability


def _is_today(instant: datetime | None) -> bool:
    # X bills a user once a UTC day.
    return instant is not None and instant.astimezone(UTC).date() == datetime.now(UTC).date()
