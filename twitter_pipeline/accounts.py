"""Names -> accounts: who holds a name now, and which accounts cannot be had."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from twitter_pipeline.calls import Reply, XApi
from twitter_pipeline.chunks import chunks
from twitter_pipeline.errors import ApiError, Availability
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import end_account
from twitter_pipeline.store.users import KnownUser, find_users, save_availability, save_users
from twitter_pipeline.words import AccountOutcome, HoleCause, Source
from twitter_pipeline.x_api.parsing import User, UsersAnswer
from twitter_pipeline.x_api.problems import Problem, availability_of

NAMES_PER_CALL = 100

WORDS = {
    Availability.NOT_FOUND: "X knows no account of this name",
    Availability.SUSPENDED: "X has suspended the account",
    Availability.PROTECTED: "the account is protected: only its followers can read it",
}

WORDS_BY_ID = {**WORDS, Availability.NOT_FOUND: "X does not know the account any more"}
"""The same where X was asked by id."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account to fetch: the request for it, its id, and how many tweets the API counted when.

    `note` says what a person should know although nothing is wrong (a rename).
    """

    request: FetchRequest
    user_id: int
    tweet_count: int | None
    counted_at: datetime | None
    note: str | None = None

    def was_read_on_day_of(self, now: datetime) -> bool:
        """Whether the profile was read on this UTC day: X does not bill it again."""
        return self.counted_at is not None and self.counted_at.astimezone(UTC).date() == now.astimezone(UTC).date()

    def may_have_lost_name(self, now: datetime) -> bool:
        """Whether the name was asked for, and not looked up on this UTC day: another account may hold it by now."""
        return self.request.user_id is None and not self.was_read_on_day_of(now)

    def is_contradicted_by(self, users: Iterable[User]) -> bool:
        """Whether a user of an answer has the account's id or the name that was asked for, but not both."""
        return any((user.id == self.user_id) != (user.username.lower() == self.request.username) for user in users)


@dataclass(frozen=True, slots=True)
class Absence:
    """A requested account that cannot be fetched. `availability` is None when X could not be asked."""

    request: FetchRequest
    reason: str
    availability: Availability | None
    user_id: int | None = None


@dataclass(frozen=True, slots=True)
class _ById:
    """A request that is looked up by id.

    `holder` is why the name's present holder cannot be had, perhaps another account; None where nobody is known to hold
    it.
    """

    request: FetchRequest
    user_id: int
    holder: Absence | None = None


@dataclass(slots=True)
class Resolution:
    """What became of the names of a request.

    `calls` are the look-ups that were sent, for `looked_up` names, of which X bills `billed_users` profiles.
    """

    accounts: list[Account] = field(default_factory=list[Account])
    absences: list[Absence] = field(default_factory=list[Absence])
    calls: int = 0
    looked_up: int = 0
    billed_users: int = 0


def age_that_serves(requests: Sequence[FetchRequest], *, profile_max_age: timedelta, now: datetime) -> timedelta:
    """Return how old a profile may be to serve a request without being looked up again.

    For a backfill a day at most: X's count must be recent enough to show how far a timeline reaches. For a search it
    must be of this UTC day: it would show nothing of an account that was renamed or protected since, as if that had
    written nothing, or a stranger's tweets, which X bills.
    """
    sources = {request.fetch_mode.source for request in requests if request.fetch_mode.months is not None}
    if not sources:
        return profile_max_age
    return min(profile_max_age, timedelta(days=1) if sources == {Source.TIMELINE} else since_midnight(now))


def since_midnight(now: datetime) -> timedelta:
    """Return how old a profile of this UTC day may be: X bills none twice a day."""
    return now - now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def record_absence(database: Database, fetch_run_id: int, absence: Absence) -> AccountOutcome:
    """Write into a run why a requested account cannot be fetched."""
    is_known = absence.availability is not None
    outcome = AccountOutcome.UNAVAILABLE if is_known else AccountOutcome.FAILED
    end_account(
        database,
        fetch_run_id,
        absence.request.username,
        outcome,
        reason=absence.reason,
        cause=HoleCause.PROTECTED if is_known else HoleCause.FAULT,
        user_id=absence.user_id,
    )
    return outcome


class Resolver:
    """Turns the names of requests into accounts, asking X only for what is not known or no longer fresh.

    A look-up costs twice a post, so a profile that was read less than `profile_max_age` ago serves. Accounts that
    could not be had are always looked up again: they may be back.
    """

    def __init__(
        self,
        api: XApi,
        database: Database,
        *,
        fetch_run_id: int | None,
        profile_max_age: timedelta,
        now: datetime,
        allow: Callable[[int], None] | None = None,
    ) -> None:
        """Make one; `allow` gets the number of profiles that may be billed before any call, and may raise."""
        self._api = api
        self._database = database
        self._fetch_run_id = fetch_run_id
        self._fresh_since = now - profile_max_age
        self._now = now
        self._read_today: frozenset[int] = frozenset()
        self._allow = allow

    def resolve(self, requests: Sequence[FetchRequest]) -> Resolution:
        """Resolve all names, 100 a call. A look-up that fails fails its names only; NoTokenAvailable is raised."""
        resolution = Resolution()
        known = self._known(requests)
        self._read_today = frozenset(user.id for user in known.values() if self._was_read_today(user))
        unknown: list[FetchRequest] = []
        by_id: list[_ById] = []
        for request in requests:
            user = known.get(request.username)
            if user is not None and self._serves(user):
                resolution.accounts.append(Account(request, user.id, user.tweet_count, user.profile_read_at))
            elif request.user_id is not None:
                by_id.append(_ById(request, request.user_id))
            else:
                unknown.append(request)
        resolution.looked_up = len(unknown) + len(by_id)
        if self._allow is not None:
            wanted = [*unknown, *(each.request for each in by_id)]
            read = (known[each.username].id in self._read_today for each in wanted if each.username in known)
            self._allow(len(wanted) - sum(read))
        for chunk in chunks(unknown, NAMES_PER_CALL):
            by_id.extend(self._look_up_names(chunk, known, resolution))
        for chunk in chunks(by_id, NAMES_PER_CALL):
            self._look_up_ids(chunk, resolution)
        return resolution

    def calls_for(self, requests: Sequence[FetchRequest]) -> int:
        """Return how many look-ups resolving these names takes now."""
        known = find_users(self._database, [request.username for request in requests])
        found = [known.get(request.username) for request in requests]
        unknown = [user for user in found if user is None or not self._serves(user)]
        # X is asked by id for those of our accounts that it does not show by this name.
        gone = (Availability.NOT_FOUND, Availability.SUSPENDED)
        by_id = [user for user in unknown if user is not None and (user.is_former_name or user.availability in gone)]
        return sum(-(-len(users) // NAMES_PER_CALL) for users in (unknown, by_id))

    def _known(self, requests: Sequence[FetchRequest]) -> dict[str, KnownUser]:
        """Return the stored accounts of these requests by name; of those that ask for an id, only where it has it."""
        wanted = {request.username: request.user_id for request in requests}
        users = find_users(self._database, wanted)
        return {name: user for name, user in users.items() if wanted[name] in (None, user.id)}

    def _serves(self, user: KnownUser) -> bool:
        is_fresh = user.profile_read_at is not None and user.profile_read_at > self._fresh_since
        return is_fresh and not user.is_former_name and user.availability is Availability.ACTIVE

    def _was_read_today(self, user: KnownUser) -> bool:
        # X bills a user once a UTC day, as it does a post.
        return user.profile_read_at is not None and user.profile_read_at.astimezone(UTC).date() == self._now.date()

    def _look_up_names(
        self, requests: Sequence[FetchRequest], known: dict[str, KnownUser], resolution: Resolution
    ) -> list[_ById]:
        """Look up names; return those that X does not show although we know them: they may have been renamed."""
        names = [request.username for request in requests]
        answer = self._ask(
            lambda: self._api.fetch_users_by_usernames(
                names, fetch_run_id=self._fetch_run_id, read_today=self._read_today
            ),
            requests,
            resolution,
        )
        if answer is None:
            return []
        found = {user.username.lower(): user for user in answer.users}
        problems = {problem.value.lower(): problem for problem in answer.problems}
        renamed: list[_ById] = []
        for request in requests:
            user, earlier = found.get(request.username), known.get(request.username)
            if user is not None:
                self._add(request, user, resolution, note=_changed_hands(user, earlier))
                continue
            absence = _absence(request, problems.get(request.username))
            if absence.availability is not None and earlier is not None:
                nobody = absence.availability is Availability.NOT_FOUND
                renamed.append(_ById(request, earlier.id, None if nobody else absence))
            else:
                resolution.absences.append(absence)
        return renamed

    def _look_up_ids(self, missing: Sequence[_ById], resolution: Resolution) -> None:
        requests = [each.request for each in missing]
        ids = [each.user_id for each in missing]
        answer = self._ask(
            lambda: self._api.fetch_users(ids, fetch_run_id=self._fetch_run_id, read_today=self._read_today),
            requests,
            resolution,
        )
        if answer is None:
            return
        found = {user.id: user for user in answer.users}
        problems = {problem.value or problem.resource_id: problem for problem in answer.problems}
        for each in missing:
            request, user = each.request, found.get(each.user_id)
            if user is None:
                absence = _absence(request, problems.get(str(each.user_id)), each.user_id)
                self._save_availability(absence)
                if each.holder is not None and absence.availability not in (None, each.holder.availability):
                    absence = each.holder
                resolution.absences.append(absence)
            elif user.username.lower() == request.username:
                self._add(request, user, resolution, note=None)
            elif each.holder is None:
                self._add(request, user, resolution, note=f"renamed: the account is @{user.username} now")
            else:
                resolution.absences.append(each.holder)

    def _ask(
        self, look_up: Callable[[], Reply[UsersAnswer]], requests: Sequence[FetchRequest], resolution: Resolution
    ) -> UsersAnswer | None:
        try:
            reply = look_up()
        except ApiError as error:
            resolution.calls += error.calls
            resolution.absences.extend(Absence(request, str(error), None) for request in requests)
            return None
        resolution.calls += reply.calls
        resolution.billed_users += sum(user.id not in self._read_today for user in reply.value.users)
        save_users(self._database, reply.value.users, read_at=self._now)
        return reply.value

    def _add(self, request: FetchRequest, user: User, resolution: Resolution, *, note: str | None) -> None:
        if user.protected:
            absence = Absence(request, WORDS[Availability.PROTECTED], Availability.PROTECTED, user.id)
            self._save_availability(absence)
            resolution.absences.append(absence)
        else:
            resolution.accounts.append(Account(request, user.id, user.tweet_count, self._now, note))

    def _save_availability(self, absence: Absence) -> None:
        if absence.user_id is not None and absence.availability is not None:
            save_availability(
                self._database, absence.user_id, absence.availability, reason=absence.reason, at=self._now
            )


def _absence(request: FetchRequest, problem: Problem | None, user_id: int | None = None) -> Absence:
    availability = availability_of(problem) if problem else None
    if availability is not None:
        words = WORDS if request.user_id is None else WORDS_BY_ID
        return Absence(request, words[availability], availability, user_id)
    said = f"X says: {problem}" if problem else "X's answer does not mention it"
    return Absence(request, f"the name could not be looked up ({said})", None)


def _changed_hands(user: User, earlier: KnownUser | None) -> str | None:
    if earlier is None or earlier.id == user.id:
        return None
    seen_at = None if earlier.is_former_name else earlier.profile_read_at
    since = "" if seen_at is None else f" since {seen_at.astimezone(UTC):%Y-%m-%d}"
    tracked = ", which stays tracked; the weekly check looks up its present name" if earlier.is_tracked else ""
    return (
        f"the name has changed hands{since}: it belongs to the account with id {user.id} now; "
        f"what was stored before is of id {earlier.id}{tracked}"
    )
