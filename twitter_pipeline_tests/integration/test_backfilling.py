"""Months of accounts, from the archive search and from timelines, over the sandbox and a real database."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.multirange import Multirange

from twitter_pipeline import backfill, search_reading
from twitter_pipeline.coverage import Coverage, IdRange
from twitter_pipeline.errors import Interrupted, NoTokenAvailable
from twitter_pipeline.months import Months
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Faults, RawAnswer
from twitter_pipeline.sandbox.windows import SEARCH_ALL, USER_TWEETS
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import AccountReport
from twitter_pipeline.store.timelines import read_coverage
from twitter_pipeline.words import AccountOutcome, FetchKind, HoleCause, Source
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox
from twitter_pipeline_tests.of_2023 import SPRING, no_archive, of_a_year

YEAR = Months(date(2023, 1, 1), date(2023, 12, 1))


@dataclass
class Archive:
    """Backfills over a sandbox."""

    sandbox: Sandbox
    database: Database
    settings: Settings

    def fill(self, *names: str, months: Months = YEAR, source: Source = Source.AUTO) -> Sequence[AccountReport]:
        mode = FetchMode(months=months, source=source)
        return self.run([FetchRequest(name, fetch_mode=mode) for name in names], FetchKind.BACKFILL)

    def run(self, requests: Sequence[FetchRequest], kind: FetchKind) -> Sequence[AccountReport]:
        with FetchSession(self.settings, self.database, requests=requests, kind=kind) as session:
            session.fetch_all()
            return session.account_reports()

    def calls(self, endpoint: str = SEARCH_ALL) -> int:
        return sum(call.endpoint == endpoint and call.status == 200 for call in self.sandbox.api.calls)

    def stored(self, name: str) -> set[int]:
        rows = self.database.execute("SELECT id FROM tweets WHERE author_id = %s", (self.user_id(name),))
        return {tweet_id for (tweet_id,) in rows}

    def user_id(self, name: str) -> int:
        user = self.sandbox.world.user(name)
        assert user is not None
        return int(user["id"])

    def truth(self, name: str, months: Months) -> set[int]:
        return {tweet_id for tweet_id in self.sandbox.world.tweet_ids(name) if tweet_id in months.ids}

    def state(self, name: str) -> tuple[Coverage, Coverage]:
        rows: list[tuple[Multirange[int], Multirange[int]]] = self.database.execute(
            "SELECT covered, searched FROM user_state WHERE user_id = %s", (self.user_id(name),)
        )
        return read_coverage(rows[0][0]), read_coverage(rows[0][1])


MakeArchive = Callable[..., Archive]


@pytest.fixture
def make_archive(make_sandbox: MakeSandbox, database: Database, database_url: str) -> MakeArchive:
    def make(accounts: Sequence[AccountSpec], **options: Any) -> Archive:
        sandbox = make_sandbox(accounts, tokens=8, **options)
        settings = replace(
            Settings(),
            bearer_tokens=sandbox.bearer_tokens,
            api_url=sandbox.serve(),
            database_url=database_url,
            confirm_after=timedelta(0),
        )
        return Archive(sandbox, database, settings)

    return make


def test_months_of_several_accounts_share_queries_and_are_whole_by_search(make_archive: MakeArchive) -> None:
    names = [f"account_{number:02}" for number in range(10)]
    archive = make_archive([of_a_year(name, 365) for name in names])

    reports = archive.fill(*names, months=SPRING)

    for name in names:
        assert archive.stored(name) == archive.truth(name, SPRING)
        assert archive.state(name) == (Coverage(), Coverage((SPRING.ids,)))
    assert [report.outcome for report in reports] == [AccountOutcome.DONE] * 10
    assert reports[0].reason == backfill.BY_SEARCH
    assert sum(report.tweets_new for report in reports) == sum(len(archive.truth(name, SPRING)) for name in names)
    # 920 tweets of ten accounts, 500 a page, and the end once more.
    assert archive.calls() == 3
    assert archive.calls(USER_TWEETS) == 0


@pytest.mark.parametrize(("batch_accounts", "sizes"), [(25, [4, 4, 2]), (3, [3, 1, 3, 1, 2])])
def test_a_batch_has_room_in_one_query_and_in_one_process_all_share_them(
    make_archive: MakeArchive, batch_accounts: int, sizes: list[int]
) -> None:
    names = [f"account_{number:02}" for number in range(10)]
    archive = make_archive([of_a_year(name) for name in names])
    mode = FetchMode(months=SPRING)
    # Four of "from:account_00 OR " fit.
    settings = replace(archive.settings, archive_query_characters=80, batch_accounts=batch_accounts)
    requests = [FetchRequest(name, fetch_mode=mode) for name in names]
    with FetchSession(settings, archive.database, requests=requests, kind=FetchKind.BACKFILL) as session:
        batches = session.resolve().batches
        reports = [session.fetch(batch) for batch in batches]

    assert [len(batch) for batch in batches] == sizes
    assert [account.request.username for batch in batches for account in batch] == names
    assert [report.outcome for batch in reports for report in batch] == [AccountOutcome.DONE] * 10
    assert [archive.stored(name) for name in names] == [archive.truth(name, SPRING) for name in names]
    # Each query has one page, and its end is requested again.
    assert archive.calls() == 6


def test_what_ends_a_backfill_ends_its_other_batches_at_once(make_archive: MakeArchive) -> None:
    names = ["alpha", "beta", "gamma"]
    archive = make_archive([of_a_year(name) for name in names])
    mode = FetchMode(months=SPRING, source=Source.SEARCH)
    settings = replace(archive.settings, batch_accounts=1)
    requests = [FetchRequest(name, fetch_mode=mode) for name in names]
    with FetchSession(settings, archive.database, requests=requests, kind=FetchKind.BACKFILL) as session:
        batches = session.resolve().batches
        for bearer in archive.sandbox.api.bearers:
            archive.sandbox.api.set_token_state(bearer, "capped")
        archive.sandbox.api.reset_accounting()
        for batch in batches:
            with pytest.raises(NoTokenAvailable):
                session.fetch(batch)

    # Each token was tried once.
    assert len(archive.sandbox.api.calls) == 8


def test_filling_again_asks_for_nothing(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one"), of_a_year("two")])
    archive.fill("one", "two", months=SPRING)
    archive.sandbox.api.reset_accounting()

    reports = archive.fill("one", "two", months=SPRING)

    assert [(report.outcome, report.reason) for report in reports] == [(AccountOutcome.DONE, None)] * 2
    assert archive.calls() == 0


def test_what_is_stored_is_not_searched_for_again(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one"), of_a_year("two")])
    archive.run([FetchRequest("one", fetch_mode=FetchMode(60))], FetchKind.HISTORY)
    archive.sandbox.api.reset_accounting()

    archive.fill("one", "two")

    assert archive.stored("one") == archive.truth("one", YEAR)
    assert archive.stored("two") == archive.truth("two", YEAR)
    # The search takes whole seconds: the stored tweets at both ends of a piece come again.
    assert archive.sandbox.api.posts_billed() <= 365 - 60 + 365 + 2


def test_a_full_request_after_a_backfill_reads_only_the_rest(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one")])
    archive.fill("one", months=SPRING)
    archive.sandbox.api.reset_accounting()

    archive.run([FetchRequest("one", fetch_mode=FULL)], FetchKind.HISTORY)

    assert archive.stored("one") == set(archive.sandbox.world.tweet_ids("one"))
    covered, searched = archive.state("one")
    assert searched == Coverage((SPRING.ids,))
    assert (covered | searched).gaps(IdRange(1, SPRING.ids.hi)) == ()
    # Five tweets from below the hole came along, which X gives for free on the day that they were bought.
    assert archive.sandbox.api.posts_billed() == 73 - len(archive.truth("one", SPRING)) + 5


def test_retweets_that_the_search_leaves_out_are_had_by_asking_the_timeline(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one", kinds={"original": 1.0, "retweet": 1.0})], search_retweets=False)
    archive.fill("one", months=SPRING)
    missing = archive.truth("one", SPRING) - archive.stored("one")

    reports = archive.fill("one", months=SPRING, source=Source.TIMELINE)

    assert missing
    assert [report.outcome for report in reports] == [AccountOutcome.DONE]
    assert archive.stored("one") >= archive.truth("one", SPRING)
    assert archive.state("one")[0].gaps(SPRING.ids) == ()


def test_without_a_token_for_the_archive_the_timeline_fills_what_it_reaches(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one"), of_a_year("prolific", 5_000)], faults=Faults(script=no_archive))

    one, prolific = archive.fill("one", "prolific")

    assert archive.stored("one") == archive.truth("one", YEAR)
    assert (one.outcome, one.cause) == (AccountOutcome.DONE, None)
    assert len(archive.stored("prolific")) == 3_200
    assert (prolific.outcome, prolific.cause) == (AccountOutcome.PARTIAL, HoleCause.BEYOND_REACH)
    assert "only the archive search has" in (prolific.reason or "")


def test_a_backfill_that_must_search_fails_without_a_token_for_it(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one")], faults=Faults(script=no_archive))

    with pytest.raises(NoTokenAvailable, match="No token can call /2/tweets/search/all"):
        archive.fill("one", source=Source.SEARCH)

    assert archive.database.execute("SELECT outcome::text, cause::text FROM fetch_run_accounts") == [
        ("interrupted", "capped")
    ]


def test_where_x_does_not_take_a_page_token_a_search_continues_below_the_last_tweet(make_archive: MakeArchive) -> None:
    body = b'{"title":"Invalid Request","detail":"The next_token has expired.","parameter":"next_token"}'
    faults = Faults(script=[None, RawAnswer(400, body)], endpoints=frozenset({SEARCH_ALL}))
    archive = make_archive([of_a_year("one")], faults=faults)
    archive.settings = replace(archive.settings, archive_page_size=50)
    (report,) = archive.fill("one")

    assert report.outcome is AccountOutcome.DONE
    assert archive.stored("one") == archive.truth("one", YEAR)
    assert [call.status for call in archive.sandbox.api.calls if call.endpoint == SEARCH_ALL][:3] == [200, 400, 200]


@pytest.mark.parametrize("kind", ["empty_answer", "empty_page", "short_page", "out_of_order", "reset"])
def test_odd_answers_hide_nothing(make_archive: MakeArchive, kind: str) -> None:
    names = ["one", "two", "three"]
    archive = make_archive([of_a_year(name) for name in names], faults=Faults(rates={kind: 0.3}, seed=5))

    archive.fill(*names)

    assert {name: archive.stored(name) for name in names} == {name: archive.truth(name, YEAR) for name in names}


def test_what_came_before_it_stopped_stays_and_is_not_bought_again(
    make_archive: MakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"account_{number}" for number in range(4)]
    archive = make_archive([of_a_year(name, 1_000) for name in names])
    saves = 0
    save_found = search_reading.save_found

    def save_and_stop(*args: Any, **kwargs: Any) -> None:
        nonlocal saves
        saves += 1
        if saves % 2 == 0:
            raise KeyboardInterrupt
        save_found(*args, **kwargs)

    monkeypatch.setattr(search_reading, "save_found", save_and_stop)
    tries = 0
    while tries < 20:
        tries += 1
        try:
            archive.fill(*names)
        except (KeyboardInterrupt, Interrupted):
            continue
        if all(archive.stored(name) == archive.truth(name, YEAR) for name in names):
            break

    assert {name: archive.stored(name) for name in names} == {name: archive.truth(name, YEAR) for name in names}
    # 4,000 tweets are 8 pages; a page that was not stored is the only one to be asked for twice.
    assert archive.calls() <= 8 + 2 * tries


def test_an_account_that_another_run_is_filling_is_waited_for(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one", 3_000), of_a_year("two", 3_000)])
    archive.fill("one", "two", months=Months(date(2022, 1, 1), date(2022, 1, 1)))
    archive.sandbox.api.reset_accounting()
    threads = [threading.Thread(target=archive.fill, args=("one", "two")) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert archive.stored("one") == archive.truth("one", YEAR)
    assert archive.calls() == 12
    assert archive.database.execute("SELECT count(*) FROM walks") == [(0,)]


def test_nothing_is_asked_of_months_before_the_account_was_made(make_archive: MakeArchive) -> None:
    archive = make_archive([of_a_year("one")])

    reports = archive.fill("one", months=Months(date(2008, 1, 1), date(2009, 12, 1)))

    assert [report.outcome for report in reports] == [AccountOutcome.DONE]
    assert archive.calls() == 0


def test_tweets_from_before_ids_carried_their_time_are_found(make_archive: MakeArchive) -> None:
    start = datetime(2009, 6, 1, tzinfo=UTC)
    spec = AccountSpec(
        "pioneer",
        tweets=300,
        created_at=start.timestamp() - 86_400,
        first_tweet_at=start.timestamp(),
        last_tweet_at=(start + timedelta(days=700)).timestamp(),
    )
    archive = make_archive([spec])
    months = Months(date(2009, 7, 1), date(2009, 7, 1))

    archive.fill("pioneer", months=months)

    assert archive.stored("pioneer") == archive.truth("pioneer", months)
    assert len(archive.stored("pioneer")) > 100
