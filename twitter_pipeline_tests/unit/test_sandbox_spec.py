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


def operation(endpoint: str) -> dict[str, Any]:
    path = "/".join(f"{{{part[1:]}}}" if part.startswith(":") else part for part in endpoint.split("/"))
    return SPEC["paths"][path]["get"]


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
        endpoint = choice.choice(list(DEFAULT_LIMITS))
        of_users = endpoint in {at.USERS_BY, at.USERS, at.USER, at.USER_BY_NAME}
        given = random_fields(choice, of_users=of_users) if endpoint != at.USAGE else {}
        path = endpoint
        if endpoint == at.USERS_BY:
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
    ],
)
def test_its_field_lists_are_those_of_the_specification(name: str, values: tuple[str, ...]) -> None:
    assert set(values) == set(SPEC["components"]["parameters"][name]["schema"]["items"]["enum"])


def test_every_answer_fits_the_schema_of_its_operation() -> None:
    sandbox = api(limits=dict.fromkeys(DEFAULT_LIMITS, 10_000))
    validators = {
        endpoint: validator(operation(endpoint)["responses"]["200"]["content"]["application/json"]["schema"])
        for endpoint in DEFAULT_LIMITS
    }
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
    assert seen == set(DEFAULT_LIMITS)


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
