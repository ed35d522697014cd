"""The sandbox held against X's own description of its API (OpenAPI 2.166, trimmed)."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode

import pytest
from jsonschema import Draft202012Validator

from twitter_pipeline.sandbox import vocabulary as words
from twitter_pipeline.sandbox import windows as at
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import Response, SandboxApi
from twitter_pipeline.sandbox.parameters import CHECKS
from twitter_pipeline.sandbox.windows import DEFAULT_LIMITS, TokenSpec, TokenState
from twitter_pipeline.sandbox.world import World

PAYLOADS: Final = Path(__file__).parent.parent / "payloads"
SPEC: Final[dict[str, Any]] = json.loads((PAYLOADS / "openapi-2.166-trimmed.json").read_text())
NOW: Final = 1_795_000_000.25
HEADERS: Final = {"authorization": "Bearer sandbox-token-1"}


_NOT_JSON_SCHEMA: Final = frozenset({"nullable", "discriminator"})


def as_json_schema(thing: Any) -> Any:
    """Translate OpenAPI 3.0 into JSON schema: `nullable` is the one word that differs in this file."""
    if isinstance(thing, list):
        return [as_json_schema(item) for item in cast("list[Any]", thing)]
    if not isinstance(thing, dict):
        return thing
    words_of_it = cast("dict[str, Any]", thing)
    schema = {name: as_json_schema(value) for name, value in words_of_it.items() if name not in _NOT_JSON_SCHEMA}
    return {"anyOf": [schema, {"type": "null"}]} if words_of_it.get("nullable") is True else schema


COMPONENTS: Final = as_json_schema(SPEC["components"])


def validator(schema: Mapping[str, Any]) -> Callable[[object], list[str]]:
    """Make a function that says what is wrong with a thing by a schema of the specification."""
    made: Any = Draft202012Validator({**as_json_schema(dict(schema)), "components": COMPONENTS})
    return lambda thing: [error.message for error in made.iter_errors(thing)]


OF_STREAMS: Final = frozenset({at.STREAM, at.STREAM_RULES, at.CHANGE_RULES})
READS: Final = tuple(endpoint for endpoint in DEFAULT_LIMITS if endpoint not in OF_STREAMS)


def operation(endpoint: str) -> dict[str, Any]:
    method, _, path = endpoint.rpartition(" ")
    path = "/".join(f"{{{part[1:]}}}" if part.startswith(":") else part for part in path.split("/"))
    return SPEC["paths"][path][method.lower() or "get"]


def answer_schema(endpoint: str) -> Mapping[str, Any]:
    return operation(endpoint)["responses"]["200"]["content"]["application/json"]["schema"]


def parameters_of(endpoint: str) -> dict[str, dict[str, Any]]:
    found = (
        SPEC["components"]["parameters"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
        for entry in operation(endpoint)["parameters"]
    )
    return {entry["name"]: entry for entry in found}


def api(**options: Any) -> SandboxApi:
    accounts = [AccountSpec("everything", tweets=400, kinds={"original": 4, "reply": 2, "retweet": 2, "quote": 2})]
    world = World(7, clock=lambda: NOW, accounts=accounts)
    return SandboxApi(world, tokens=[TokenSpec("sandbox-token-1")], **options)


def get(sandbox: SandboxApi, path: str, **parameters: str) -> Response:
    query = urlencode({name.replace("__", "."): value for name, value in parameters.items()})
    return sandbox.handle("GET", path, query, HEADERS)


def some(choice: random.Random, values: tuple[str, ...]) -> str:
    return ",".join(choice.sample(values, choice.randint(1, len(values))))


def random_fields(choice: random.Random, *, of_users: bool) -> dict[str, str]:
    lists: dict[str, tuple[str, ...]] = {"tweet.fields": words.TWEET_FIELDS, "user.fields": words.USER_FIELDS}
    if of_users:
        lists["expansions"] = words.USER_EXPANSIONS
    else:
        lists |= {
            "expansions": words.TWEET_EXPANSIONS,
            "media.fields": words.MEDIA_FIELDS,
            "poll.fields": words.POLL_FIELDS,
            "place.fields": words.PLACE_FIELDS,
        }
    return {name: some(choice, values) for name, values in lists.items() if choice.random() < 0.7}


def random_requests(sandbox: SandboxApi, count: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Give requests of every kind that are right, about accounts of every kind: endpoint, path, parameters."""
    choice = random.Random(20)
    names = ["everything", "nasa", "busy_bee", "quiet_mouse", "protected_one", "suspended_one", "missing_one"]
    accounts = {name: sandbox.world.user(name) for name in names}
    user_ids = [user["id"] for user in accounts.values() if user] + ["12"]
    tweet_ids = [str(tweet_id) for tweet_id in sandbox.world.tweet_ids("everything")] + ["20"]
    tweet_ids += [str(sandbox.world.tweet_ids(name)[0]) for name in ("protected_one", "suspended_one")]
    for _ in range(count):
        endpoint = choice.choice(READS)
        of_users = endpoint in {at.USERS_BY, at.USERS, at.USER, at.USER_BY_NAME}
        given = random_fields(choice, of_users=of_users)
        path = endpoint
        if endpoint == at.USAGE:
            given = {"days": str(choice.randint(1, 90)), "usage.fields": some(choice, words.USAGE_FIELDS)}
        elif endpoint == at.USERS_BY:
            given["usernames"] = ",".join(choice.sample(names, 4))
        elif endpoint == at.USERS:
            given["ids"] = ",".join(choice.sample(user_ids, 4))
        elif endpoint == at.USER_BY_NAME:
            path = endpoint.replace(":username", choice.choice(names))
        elif endpoint in {at.USER, at.USER_TWEETS}:
            path = endpoint.replace(":id", choice.choice(user_ids))
        elif endpoint == at.TWEETS:
            given["ids"] = ",".join(choice.sample(tweet_ids, 50))
        elif endpoint == at.TWEET:
            path = endpoint.replace(":id", choice.choice(tweet_ids))
        elif endpoint in {at.COUNTS_RECENT, at.COUNTS_ALL}:
            given = {"query": "from:everything", "granularity": "day"}
        elif endpoint in {at.SEARCH_RECENT, at.SEARCH_ALL}:
            given |= {"query": "from:everything OR from:busy_bee", "max_results": str(choice.randint(10, 100))}
        if endpoint == at.USER_TWEETS:
            given["max_results"] = str(choice.randint(5, 100))
        yield endpoint, path, given


@pytest.mark.parametrize("endpoint", DEFAULT_LIMITS)
def test_every_parameter_it_takes_is_in_the_specification(endpoint: str) -> None:
    known = set(parameters_of(endpoint)) | {"post.fields"}

    assert set(CHECKS[endpoint]) <= known


@pytest.mark.parametrize("endpoint", DEFAULT_LIMITS)
def test_it_takes_every_parameter_of_the_specification(endpoint: str) -> None:
    assert set(parameters_of(endpoint)) <= set(CHECKS[endpoint])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("TweetFieldsParameter", words.TWEET_FIELDS),
        ("TweetExpansionsParameter", words.TWEET_EXPANSIONS),
        ("UserFieldsParameter", words.USER_FIELDS),
        ("UserExpansionsParameter", words.USER_EXPANSIONS),
        ("MediaFieldsParameter", words.MEDIA_FIELDS),
        ("PollFieldsParameter", words.POLL_FIELDS),
        ("PlaceFieldsParameter", words.PLACE_FIELDS),
        ("UsageFieldsParameter", words.USAGE_FIELDS),
        ("SearchCountFieldsParameter", words.SEARCH_COUNT_FIELDS),
    ],
)
def test_its_field_lists_are_those_of_the_specification(name: str, values: tuple[str, ...]) -> None:
    assert set(values) == set(SPEC["components"]["parameters"][name]["schema"]["items"]["enum"])


def test_it_takes_the_user_fields_of_both_vocabularies() -> None:
    both = [*words.USER_FIELDS, *words.POST_USER_FIELDS]

    assert get(api(), "/2/users", ids="1", user__fields=",".join(both)).status == 200


def test_every_answer_fits_the_schema_of_its_operation() -> None:
    sandbox = api(limits=dict.fromkeys(DEFAULT_LIMITS, 10_000))
    validators = {endpoint: validator(answer_schema(endpoint)) for endpoint in READS}
    seen: set[str] = set()
    for endpoint, path, given in random_requests(sandbox, 120):
        response = sandbox.handle("GET", path, urlencode(given), HEADERS)
        if response.status == 429:  # search/all takes one call a second, and this clock stands still
            assert endpoint == at.SEARCH_ALL
            continue

        body = json.loads(response.body)

        assert response.status == 200, body
        assert validators[endpoint](body) == []
        seen.add(endpoint)
    assert seen == set(READS)


def test_included_objects_fit_the_schema_of_their_own_kind() -> None:
    """`Media` itself says little: photos, videos and animated GIFs have schemas of their own."""
    sandbox = api()
    account = sandbox.world.account_named("everything")
    assert account is not None
    names = {"photo": "Photo", "video": "Video", "animated_gif": "AnimatedGif"}
    kinds: set[str] = set()
    token: dict[str, str] = {}
    while True:
        response = get(
            sandbox,
            f"/2/users/{account.user_id}/tweets",
            max_results="100",
            expansions="attachments.media_keys",
            media__fields=",".join(words.MEDIA_FIELDS),
            **token,
        )
        page = json.loads(response.body)
        for media in page.get("includes", {}).get("media", []):
            kinds.add(media["type"])
            schema = validator({"$ref": f"#/components/schemas/{names[media['type']]}"})

            assert schema(media) == []
        if "next_token" not in page["meta"]:
            break
        token = {"pagination_token": page["meta"]["next_token"]}
    assert kinds == set(names)


@pytest.mark.parametrize(
    ("path", "query", "schema"),
    [
        ("/2/users/1/tweets", "max_results=4", "InvalidRequestProblem"),
        ("/2/users/1/tweets", "nonsense=4&tweet.fields=nonsense", "InvalidRequestProblem"),
        ("/2/users/1/tweets", "", "ResourceNotFoundProblem"),
        ("/2/users/by", "usernames=suspended_one", "ResourceNotFoundProblem"),
        ("/2/tweets", "ids=20", "ResourceNotFoundProblem"),
        ("/2/users/:protected_one/tweets", "", "ResourceUnauthorizedProblem"),
    ],
)
def test_refusals_and_partial_errors_fit_their_problem(path: str, query: str, schema: str) -> None:
    sandbox = api()
    protected = sandbox.world.user("protected_one")
    assert protected is not None
    body = json.loads(sandbox.handle("GET", path.replace(":protected_one", protected["id"]), query, HEADERS).body)
    problem = body if "title" in body else body["errors"][0]

    assert validator({"$ref": f"#/components/schemas/{schema}"})(problem) == []


@pytest.mark.parametrize(
    ("state", "schema"),
    [
        ("capped", "UsageCapExceededProblem"),
        ("not_enrolled", "ClientForbiddenProblem"),
        ("suspended_app", "ClientForbiddenProblem"),
        ("invalid", "Problem"),
        ("credits", "Problem"),
        ("spend_cap", "Problem"),
    ],
)
def test_a_closed_token_is_told_so_in_the_shape_of_its_problem(state: TokenState, schema: str) -> None:
    sandbox = api()
    sandbox.set_token_state("sandbox-token-1", state)

    body = json.loads(get(sandbox, "/2/users", ids="1").body)

    assert validator({"$ref": f"#/components/schemas/{schema}"})(body) == []


def change_rules(sandbox: SandboxApi, query: str = "", **body: Any) -> Response:
    wrong = validator(operation(at.CHANGE_RULES)["requestBody"]["content"]["application/json"]["schema"])(body)
    assert wrong == [] or query
    return sandbox.handle("POST", at.STREAM_RULES, query, HEADERS, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "query", "status"),
    [
        ({"add": [{"value": "from:nasa", "tag": "one"}, {"value": "from:esa"}]}, "", 201),
        ({"add": [{"value": "from:nasa"}]}, "dry_run=true", 201),
        ({"add": [{"value": "from:nasa"}]}, "dry_run=True", 201),
        ({"add": [{"value": "from:everything"}, {"value": "from:everything"}]}, "", 201),
        ({"add": [{"value": " OR ".join(["from:a"] * 200)}, {"value": "cats"}]}, "", 200),
        ({"delete": {"ids": ["123"]}}, "", 200),
        ({"delete": {"values": ["from:everything"]}}, "", 200),
        ({}, "delete_all=true", 200),
    ],
)
def test_every_change_of_rules_is_answered_in_the_shape_of_the_specification(
    body: dict[str, Any], query: str, status: int
) -> None:
    sandbox = api()
    change_rules(sandbox, add=[{"value": "from:everything"}])
    response = change_rules(sandbox, query, **body)

    assert response.status == status
    assert validator(answer_schema(at.CHANGE_RULES))(json.loads(response.body)) == []
    assert "dry_run" not in query or len(sandbox.stream_rules("sandbox-token-1")) == 1


def test_lists_of_rules_fit_the_specification_also_empty_and_in_pages() -> None:
    sandbox = api()
    fits = validator(answer_schema(at.STREAM_RULES))
    empty = json.loads(get(sandbox, at.STREAM_RULES).body)
    change_rules(sandbox, add=[{"value": f"from:account_{number}", "tag": "t"} for number in range(5)])
    first = json.loads(get(sandbox, at.STREAM_RULES, max_results="3").body)
    token = first["meta"]["next_token"]
    second = json.loads(get(sandbox, at.STREAM_RULES, max_results="3", pagination_token=token).body)
    chosen = json.loads(get(sandbox, at.STREAM_RULES, ids=",".join([first["data"][0]["id"]] * 1_000)).body)

    assert [fits(body) for body in (empty, first, second, chosen)] == [[], [], [], []]
    assert [len(body.get("data", [])) for body in (empty, first, second, chosen)] == [0, 3, 2, 1]


@pytest.mark.parametrize(
    ("rules", "title", "schema"),
    [
        ([{"value": "from:everything"}], "DuplicateRule", "DuplicateRuleProblem"),
        ([{"value": "x" * 2_000}], "UnprocessableEntity", "InvalidRuleProblem"),
        ([{"value": f"from:account_{number}"} for number in range(1_000)], "RulesCapExceeded", "RulesCapProblem"),
    ],
)
def test_rules_that_are_not_taken_are_told_in_the_shape_of_their_problem(
    rules: list[dict[str, str]], title: str, schema: str
) -> None:
    sandbox = api()
    change_rules(sandbox, add=[{"value": "from:everything"}])
    answer = json.loads(change_rules(sandbox, add=rules).body)
    problem = answer if "title" in answer else answer["errors"][0]

    assert problem["title"] == title
    assert validator({"$ref": f"#/components/schemas/{schema}"})(problem) == []
    assert [rule.value for rule in sandbox.stream_rules("sandbox-token-1")] == ["from:everything"]


def test_a_stream_without_rules_and_a_second_connection_are_refused_in_the_shape_of_their_problem() -> None:
    sandbox = api()
    without_rules = get(sandbox, at.STREAM)
    change_rules(sandbox, add=[{"value": "from:everything"}])
    first, second = get(sandbox, at.STREAM), get(sandbox, at.STREAM)
    fits = validator({"$ref": "#/components/schemas/ConnectionExceptionProblem"})

    assert (without_rules.status, first.status, second.status) == (409, 200, 429)
    assert fits(json.loads(without_rules.body)) == fits(json.loads(second.body)) == []
    assert json.loads(second.body)["connection_issue"] == "TooManyConnections"


def test_every_message_of_the_stream_fits_the_specification() -> None:
    now = [NOW]
    kinds: dict[Any, float] = {"original": 4, "reply": 2, "retweet": 2, "quote": 2}
    accounts = [AccountSpec("everything", tweets=40, tweets_per_day=80_000, kinds=kinds)]
    sandbox = SandboxApi(World(7, clock=lambda: now[0], accounts=accounts), tokens=[TokenSpec("sandbox-token-1")])
    change_rules(sandbox, add=[{"value": "from:everything", "tag": "all"}, {"value": "from:everything -is:retweet"}])
    lists = {
        "tweet.fields": ",".join(words.TWEET_FIELDS),
        "expansions": ",".join(words.TWEET_EXPANSIONS),
        "user.fields": ",".join(words.USER_FIELDS),
    }
    stream = sandbox.handle("GET", at.STREAM, urlencode(lists), HEADERS).stream
    assert stream is not None
    assert stream.take() == b""
    now[0] += 200
    messages = [json.loads(line) for line in (stream.take() or b"").splitlines()]
    assert sandbox.end_streams("operational") == 1
    told = json.loads((stream.take() or b"").splitlines()[-1])
    fits = validator(answer_schema(at.STREAM))

    assert [wrong for message in [*messages, told] if (wrong := fits(message))] == []
    assert [int(each["data"]["id"]) for each in messages] == sandbox.world.tweet_ids("everything")[:-40][::-1]
    assert len(messages) > 100
    assert {len(message["matching_rules"]) for message in messages} == {1, 2}
    assert {rule["tag"] for message in messages for rule in message["matching_rules"]} == {"all", ""}
    assert validator({"$ref": "#/components/schemas/OperationalDisconnectProblem"})(told["errors"][0]) == []
    assert stream.take() is None
