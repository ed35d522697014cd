"""Dates that X cannot mean, wherever an answer has one: nothing fails, and nothing is claimed that is not stored."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, cycle

import httpx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from twitter_pipeline.coverage import id_at
from twitter_pipeline.exporting.export import ExportFormat, export_tweets
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.exports import Selection, snapshot
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.partitions import make_partitions
from twitter_pipeline.store.status import load_account_statuses
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox
from twitter_pipeline_tests.integration.conftest import Pipeline, quiet

EXTREMES = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "1970-01-01T00:00:00Z",
    "2099-01-01T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
    "9999-12-31T23:59:59-23:59",
    "now",
)
HTTP_EXTREMES = (
    "Mon, 01 Jan 0001 00:00:00 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 01 Jan 2099 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
)
EXAMPLES = 8

_DATE = re.compile(rb'"(created_at|editable_until|end_datetime|reset_date)":"[^"]*"')


class Misdating(httpx.BaseTransport):
    """X, some of whose dates are extreme; None stands for the true one."""

    def __init__(self, inner: httpx.BaseTransport, dates: Iterator[int | None]) -> None:
        self._inner, self._dates = inner, dates

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        headers = dict(response.headers)
        if (number := next(self._dates)) is not None:
            headers["date"] = HTTP_EXTREMES[number % len(HTTP_EXTREMES)]
        return httpx.Response(response.status_code, headers=headers, content=_DATE.sub(self._misdate, response.read()))

    def _misdate(self, found: re.Match[bytes]) -> bytes:
        number = next(self._dates)
        return found[0] if number is None else b'"%b":"%b"' % (found[1], EXTREMES[number % len(EXTREMES)].encode())


@dataclass(frozen=True)
class MisdatingSandbox(Sandbox):
    numbers: Sequence[int | None]

    def client(self) -> XApiClient:
        transport = Misdating(self.api.transport(), cycle(self.numbers))
        return self._cleanup.enter_context(XApiClient("https://sandbox.test", transport=transport))


def test_no_date_of_xs_breaks_anything_or_makes_a_claim(make_sandbox: MakeSandbox, database: Database) -> None:
    sandbox = make_sandbox([quiet(f"user_{number}", 12) for number in range(2 * EXAMPLES)])
    names, runs = (f"user_{number}" for number in count()), count()

    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate])
    @given(st.lists(st.none() | st.integers(0, 27), min_size=1, max_size=30))
    def fetch(numbers: list[int | None]) -> None:
        misdating = MisdatingSandbox(sandbox.api, sandbox.bearer_tokens, sandbox._cleanup, numbers)
        pipeline, name = Pipeline(misdating, database, runs=next(runs)), next(names)
        pipeline.run(name, page_size=5)
        covered, _ = pipeline.coverage(name)

        assert pipeline.stored(name) == sandbox.world.served_ids(name)
        assert covered.top is not None
        assert covered.top <= id_at(datetime.now(UTC))

    fetch()
    ((earliest, latest),) = database.execute("SELECT min(created_at), max(created_at) FROM tweets")
    made = database.execute("SELECT count(*) FROM users WHERE created_at NOT BETWEEN '2006-03-20' AND now()")

    assert datetime(2006, 3, 20, tzinfo=UTC) < earliest < latest < datetime.now(UTC)
    assert [*made] == [(0,)]
    assert_everything_can_be_read(database)


def assert_everything_can_be_read(database: Database) -> None:
    accounts = load_account_statuses(database)

    assert len(accounts) >= EXAMPLES
    assert len(load_ledgers(database)) == len(accounts)
    assert make_partitions(database) == []
    for form in ExportFormat:
        with snapshot(database, sandbox=True) as tweets:
            assert export_tweets(tweets, Selection(), io.BytesIO(), form, ids_only=False) >= 12 * EXAMPLES
