"""How many calls accounts take, beside the fewest that pages of 50 allow; and that nothing is paid for twice."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.place import Place, Sandbox, connected
from benchmarks.printing import Sheet

PAGE = 50
SMALLEST_PAGE = 5
REACH = 3_200
NAMES_A_LOOKUP = 100

FULL = (0, 1, 49, 50, 51, 3_199, 3_200, 5_000)
LIMITS = (1, 7, 50, 120, 200)
OF_A_LIMITED = 5_000
OTHERS = 188
"""Small accounts besides, so that there are more names than two look-ups take."""

TWO_RUNS_S = 60.0

PAID = """
SELECT coalesce(sum(result_count) FILTER (WHERE endpoint = '/2/users/:id/tweets'), 0),
       count(*) FILTER (WHERE endpoint <> '/2/users/:id/tweets'),
       count(*), (SELECT count(*) FROM tweets)
FROM api_calls
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """An account, what is asked for of it, and what that takes at the least."""

    username: str
    tweets: int
    limit: int | None = None

    @property
    def mode(self) -> str:
        """The fetch mode as in a request."""
        return "full" if self.limit is None else f"limit:{self.limit}"

    @property
    def calls(self) -> int:
        """The fewest calls: one tells that there is nothing."""
        return max(1, -(-self._wanted // PAGE))

    @property
    def reads(self) -> int:
        """The tweets that come with the fewest calls: a last page is no smaller than the API allows."""
        whole, rest = divmod(self._wanted, PAGE)
        return min(self.tweets, whole * PAGE + (max(rest, SMALLEST_PAGE) if rest else 0))

    @property
    def _wanted(self) -> int:
        return min(self.tweets, REACH, self.limit or REACH)


WISHES = (
    *(Wish(f"full_{tweets}", tweets) for tweets in FULL),
    *(Wish(f"limit_{limit}", OF_A_LIMITED, limit) for limit in LIMITS),
)


def run(place: Place) -> list[str]:
    """Fetch all accounts twice through the job; return what was not as expected."""
    sheet = Sheet("1. Calls: what an account takes, and what running again takes")
    others = [Wish(f"other_{number}", SMALLEST_PAGE) for number in range(OTHERS)]
    wishes = [*WISHES, *others]
    accounts = [{"username": each.username, "tweets": each.tweets} for each in wishes]
    request = [{"username": each.username, "fetch_mode": each.mode} for each in wishes]
    with place.sandbox(accounts) as sandbox, place.database("calls") as url:
        first = _fetched(place, url, sandbox, request)
        calls_before = _calls_served(sandbox)
        again = _fetched(place, url, sandbox, request)
        calls_after = _calls_served(sandbox)
        with connected(url) as connection:
            read, lookups, calls, stored = connection.execute(PAID).fetchone() or (0, 0, 0, 0)
    _show(sheet, first, again)
    _judge_accounts(sheet, wishes, first, again)
    wanted = -(-len(wishes) // NAMES_A_LOOKUP)
    sheet.judge(f"look-ups for {len(wishes)} names, both runs", f"{lookups}", f"{wanted}", ok=lookups == wanted)
    expected = sum(each.calls for each in wishes) + wanted
    sheet.judge(
        "calls of the first run, counted by the server",
        f"{calls_before:,}",
        f"{expected:,}",
        ok=calls_before == expected,
    )
    second = calls_after - calls_before
    sheet.judge(
        "calls of the second run, counted by the server", f"{second:,}", f"{len(wishes):,}", ok=second == len(wishes)
    )
    sheet.judge("calls logged in api_calls", f"{calls:,}", f"{calls_after:,}, all", ok=calls == calls_after)
    sheet.judge("tweets paid for twice, of all read", f"{read - stored:,} of {read:,}", "0", ok=read == stored)
    return sheet.misses


def _fetched(place: Place, url: str, sandbox: Sandbox, request: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    ended = place.fetch(url, sandbox, request, limit_s=TWO_RUNS_S)
    return {account["username"]: account for account in json.loads(ended.output)["accounts"]}


def _calls_served(sandbox: Sandbox) -> int:
    return int(httpx.get(f"{sandbox.url}/sandbox/stats").json()["calls"])


def _show(sheet: Sheet, first: dict[str, dict[str, Any]], again: dict[str, dict[str, Any]]) -> None:
    head = ("tweets", "mode", "calls", "fewest", "tweets read", "expected", "stored", "again: calls", "tweets read")
    rows = [
        (
            f"{each.tweets:,}",
            each.mode,
            first[each.username]["calls"],
            each.calls,
            first[each.username]["tweets_fetched"],
            each.reads,
            first[each.username]["tweets_stored"],
            again[each.username]["calls"],
            again[each.username]["tweets_fetched"],
        )
        for each in WISHES
    ]
    sheet.table(head, rows)


def _judge_accounts(
    sheet: Sheet, wishes: list[Wish], first: dict[str, dict[str, Any]], again: dict[str, dict[str, Any]]
) -> None:
    names = ("outcome", "calls", "tweets_fetched", "tweets_stored")
    found = {each.username: tuple(first[each.username][name] for name in names) for each in wishes}
    right = {each.username: ("done", each.calls, each.reads, each.reads) for each in wishes}
    found_again = {each.username: tuple(again[each.username][name] for name in names) for each in wishes}
    right_again = {each.username: ("done", 1, 0, each.reads) for each in wishes}
    for what, have, want in (("first run", found, right), ("run again", found_again, right_again)):
        wrong = [f"@{name} {have[name]} instead of {want[name]}" for name in want if have[name] != want[name]]
        sheet.judge(
            f"accounts as expected, {what}",
            "; ".join([f"{len(wishes) - len(wrong)} of {len(wishes)}", *wrong[:5]]),
            "all",
            ok=not wrong,
        )
