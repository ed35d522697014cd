"""The filtered stream: the rules of each app, and connections that bring what its accounts write from now on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from threading import Lock
from typing import Any, Final, Literal, cast

import orjson

from twitter_pipeline.sandbox import problems
from twitter_pipeline.sandbox import windows as at
from twitter_pipeline.sandbox.accounts import Account
from twitter_pipeline.sandbox.answers import Answer, Call
from twitter_pipeline.sandbox.parameters import Refused, is_set
from twitter_pipeline.sandbox.problems import Problem
from twitter_pipeline.sandbox.rendering import body_of
from twitter_pipeline.sandbox.search_query import SearchQuery, read_query
from twitter_pipeline.sandbox.snowflakes import first_id_at
from twitter_pipeline.sandbox.tweets import Tweet
from twitter_pipeline.sandbox.world import World, count_below

HEARTBEAT_S: Final = 20.0
RULES: Final = 1_000
RULE_CHARACTERS: Final = 1_024
CONNECTIONS: Final = 1

Ending = Literal["operational", "cut", "close", "silence"]
"""How a connection ends on demand: told in the stream; in the middle of a line; without a word; not at all, but nothing
comes any more."""

Delivered = Callable[[int, Sequence[int]], None]
"""Told the index of a token and the ids that its stream has just brought."""

_FIRST_RULE: Final = 1_166_895_166_390_583_000
_LINE_END: Final = b"\r\n"
_CREATED: Final = 201


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of an app."""

    id: str
    value: str
    tag: str | None
    query: SearchQuery

    def as_json(self) -> dict[str, str]:
        """Give the rule as the API shows it."""
        return {"id": self.id, "value": self.value} | ({} if self.tag is None else {"tag": self.tag})

    def matches(self, tweet: Tweet) -> bool:
        """Say whether a tweet of one of its accounts is wanted."""
        return self.query.retweets or tweet.blueprint.reference != "retweeted"


class Streams:
    """The rules and the open connections of every token; each token is an app of its own."""

    def __init__(
        self,
        world: World,
        *,
        heartbeat_s: float,
        slot_release_s: float,
        visibility_delay_s: float,
        delivered: Delivered,
    ) -> None:
        self.world = world
        self.heartbeat_s = heartbeat_s
        self.slot_release_s = slot_release_s
        self.visibility_delay_s = visibility_delay_s
        self.delivered = delivered
        self.lock = Lock()
        self._rules: dict[int, dict[str, Rule]] = {}
        self._open: dict[int, list[Connection]] = {}
        self._left_at: dict[int, float] = {}
        self._numbers = count(_FIRST_RULE)

    def rules(self, token: int) -> list[Rule]:
        """Give the rules of a token's app, oldest first."""
        return list(self._rules.get(token, {}).values())

    def open_connections(self) -> list["Connection"]:
        """Give the connections that are open."""
        with self.lock:
            return [connection for connections in self._open.values() for connection in connections]

    def answer(self, call: Call, token: int, body: bytes) -> Answer:
        """Answer a call to the stream or its rules, or raise `Refused`."""
        if call.endpoint == at.STREAM_RULES:
            return self._list(call, token)
        if call.endpoint == at.CHANGE_RULES:
            return self._change(call, token, body)
        return self._connect(call, token)

    # Connections

    def _connect(self, call: Call, token: int) -> Answer:
        with self.lock:
            if not self._rules.get(token):
                return _problem(409, problems.NO_STREAM_RULES)
            lingers = time.monotonic() < self._left_at.get(token, float("-inf")) + self.slot_release_s
            if len(self._open.get(token, ())) + lingers >= CONNECTIONS:
                return _problem(429, problems.TOO_MANY_CONNECTIONS)
            connection = Connection(self, call, token)
            if "cut" in call.mishaps:
                connection.end("cut")
            self._open.setdefault(token, []).append(connection)
        return Answer(200, b"", stream=connection)

    def forget(self, connection: "Connection", token: int) -> None:
        """Give a connection's place free; X notices late that a client has gone."""
        with self.lock:
            connections = self._open.get(token, [])
            if connection in connections:
                connections.remove(connection)
                if not connection.has_ended:
                    self._left_at[token] = time.monotonic()

    # Rules

    def _list(self, call: Call, token: int) -> Answer:
        wanted = call.listed("ids") if "ids" in call.parameters else None
        rules = [rule for rule in self.rules(token) if wanted is None or rule.id in wanted]
        start = int(call.parameters.get("pagination_token", 0))
        size = int(call.parameters.get("max_results", 1_000))
        page = rules[start : start + size]
        meta: dict[str, Any] = {"sent": _sent(call), "result_count": len(page)}
        if start + size < len(rules):
            meta["next_token"] = f"{start + size:016}"
        data = {"data": [rule.as_json() for rule in page]} if page else {}
        return Answer(200, orjson.dumps({**data, "meta": meta}))

    def _change(self, call: Call, token: int, body: bytes) -> Answer:
        wanted = _object(body)
        dry = is_set(call.parameters, "dry_run")
        with self.lock:
            rules = dict(self._rules.get(token, {}))
            if is_set(call.parameters, "delete_all"):
                answer = _deleted(call, list(rules), rules)
            elif wanted.get("delete"):
                answer = _deleted(call, _named(wanted["delete"], rules), rules)
            elif wanted.get("add"):
                answer = self._added(call, wanted["add"], rules)
            else:
                message = "The request body must hold rules to `add` or to `delete`"
                raise Refused(problems.invalid_value(message))
            if not dry and answer.status < 400:
                self._rules[token] = rules
        return answer

    def _added(self, call: Call, wanted: Sequence[Mapping[str, Any]], rules: dict[str, Rule]) -> Answer:
        created: list[Rule] = []
        errors: list[Problem] = []
        ids_by_value = {rule.value: rule.id for rule in rules.values()}
        for entry in wanted:
            value = str(entry.get("value", ""))
            query = _query(value)
            if isinstance(query, str):
                errors.append(problems.invalid_rule(value, query))
            elif value in ids_by_value:
                errors.append(problems.duplicate_rule(value, ids_by_value[value]))
            else:
                rule = Rule(str(next(self._numbers)), value, entry.get("tag"), query)
                rules[rule.id] = rule
                ids_by_value[value] = rule.id
                created.append(rule)
        if len(rules) > RULES:
            return _problem(422, problems.rules_cap_exceeded(RULES))
        not_created = len(wanted) - len(created)
        summary = {"created": len(created), "not_created": not_created, "valid": len(created), "invalid": not_created}
        status = 200 if any(error["title"] == problems.INVALID_RULE for error in errors) else _CREATED
        return _rules_answer(status, call, summary, errors, data=[rule.as_json() for rule in created])


class Connection:
    """One open stream. Whoever serves it asks for bytes as time goes on, and says when the client has gone."""

    def __init__(self, streams: Streams, call: Call, token: int) -> None:
        self._streams = streams
        self._token = token
        self._renderer = streams.world.renderer_for(call.selection())
        self._twice = "duplicates" in call.mishaps
        self._newest: dict[str, int] = {}
        for rule in streams.rules(token):
            self._note(rule)
        self._sent_at = time.monotonic()
        self._ending: Ending | None = None
        self._ended = False

    @property
    def has_ended(self) -> bool:
        """Whether X has ended it, and not the client."""
        return self._ended

    @property
    def was_cut(self) -> bool:
        """Whether it ended in the middle of a line, without the end that HTTP wants."""
        return self._ended and self._ending == "cut"

    def end(self, how: Ending) -> None:
        """Have the connection end with what it sends next."""
        self._ending = how

    def close(self) -> None:
        """Note that the client has gone, or that all was sent; once is enough."""
        self._streams.forget(self, self._token)

    def take(self) -> bytes | None:
        """Give what is to be sent now, which may be nothing; None when it has ended."""
        if self._ended:
            return None
        if self._ending == "silence":
            return b""
        lines = list(self._lines())
        if self._ending is not None:
            self._ended = True
            # At once: the client may connect again before the rest is sent.
            self.close()
            return self._last(lines)
        if not lines and time.monotonic() - self._sent_at >= self._streams.heartbeat_s:
            lines = [_LINE_END]
        if lines:
            self._sent_at = time.monotonic()
        return b"".join(lines)

    def _last(self, lines: list[bytes]) -> bytes:
        if self._ending == "operational":
            return b"".join([*lines, orjson.dumps({"errors": [problems.OPERATIONAL_DISCONNECT]}), _LINE_END])
        if self._ending == "cut":
            *whole, torn = lines or [b'{"data":{"id":"']
            return b"".join([*whole, torn[: len(torn) // 2]])
        return b"".join(lines)

    def _lines(self) -> Iterator[bytes]:
        """Write what was tweeted since the last time, by accounts of rules as they are now."""
        rules_by_account: dict[Account, list[Rule]] = {}
        for rule in self._streams.rules(self._token):
            self._note(rule)
            for username in rule.query.usernames:
                account = self._streams.world.account_named(username)
                if account is not None and account.availability == "active":
                    rules_by_account.setdefault(account, []).append(rule)
        tweets = [
            (tweet, matching)
            for account, rules in rules_by_account.items()
            for tweet in self._new_of(account)
            if (matching := [rule for rule in rules if rule.matches(tweet)])
        ]
        tweets.sort(key=lambda found: found[0].id)
        if tweets:
            self._streams.delivered(self._token, [tweet.id for tweet, _ in tweets])
        for tweet, matching in tweets:
            line = self._line(tweet, matching)
            yield line
            if self._twice:
                yield line

    def _note(self, rule: Rule) -> None:
        """Have the accounts of a rule deliver what they write from now on."""
        for username in rule.query.usernames:
            account = self._streams.world.account_named(username)
            if account is not None and account.key not in self._newest:
                self._newest[account.key] = first_id_at(self._now_ms()) - 1

    def _new_of(self, account: Account) -> list[Tweet]:
        world = self._streams.world
        ids = world.existing(account, world.clock() - self._streams.visibility_delay_s)
        tweets = world.tweets_in(ids, count_below(ids, self._newest[account.key] + 1), len(ids))
        if tweets:
            self._newest[account.key] = tweets[-1].id
        return tweets

    def _line(self, tweet: Tweet, rules: Sequence[Rule]) -> bytes:
        members = self._renderer.page([tweet], user_of=self._streams.world.user_of, now_ms=self._now_ms())
        members["data"] = members["data"][1:-1]
        # A tag is never left out here: tweepy relies on it.
        members["matching_rules"] = orjson.dumps([{"id": rule.id, "tag": rule.tag or ""} for rule in rules])
        return body_of(members) + _LINE_END

    def _now_ms(self) -> int:
        return int(self._streams.world.clock() * 1000)


def _query(value: str) -> SearchQuery | str:
    """Read a rule, or say what is wrong with it."""
    if len(value) > RULE_CHARACTERS:
        return f"Rules must be no more than {RULE_CHARACTERS} characters in length: it has {len(value)}"
    query = read_query(value)
    return f"the sandbox knows no rule term [{query}]" if isinstance(query, str) else query


def _object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; whatever else a body is counts as an empty one."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _named(wanted: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """Give the ids of the rules that are to be deleted, by id or by value; one that there is not stays as it is."""
    ids_by_value = {rule.value: rule.id for rule in rules.values()}
    values: Sequence[str] = wanted.get("values", ())
    return [*map(str, wanted.get("ids", ())), *(ids_by_value.get(value, value) for value in values)]


def _deleted(call: Call, ids: Sequence[str], rules: dict[str, Rule]) -> Answer:
    gone = [rule_id for rule_id in ids if rules.pop(rule_id, None)]
    missing = len(ids) - len(gone)
    errors = [problems.invalid_request(problems.invalid_value("Rule does not exist"))] * missing
    return _rules_answer(200, call, {"deleted": len(gone), "not_deleted": missing}, errors, data=[])


def _rules_answer(
    status: int, call: Call, summary: Mapping[str, int], errors: Sequence[Problem], *, data: Sequence[object]
) -> Answer:
    body: dict[str, object] = {"data": data} if data else {}
    body["meta"] = {"sent": _sent(call), "summary": summary}
    if errors:
        body["errors"] = errors
    return Answer(status, orjson.dumps(body))


def _sent(call: Call) -> str:
    return f"{datetime.fromtimestamp(call.now, UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def _problem(status: int, problem: Mapping[str, object]) -> Answer:
    return Answer(status, orjson.dumps(problem), content_type="application/problem+json")
