"""What is requested of each object, and what is left out of it when X refuses a name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.errors import BadRequest
from twitter_pipeline.x_api.fields import OF_TWEETS, OF_USERS, FieldName, Fields
from twitter_pipeline.x_api.problems import read_failure

POSTS = Fields(OF_TWEETS.wanted, frozenset({FieldName("tweet.fields", "")}))
REQUESTED = [
    (fields, FieldName(parameter, name))
    for fields in (OF_TWEETS, OF_USERS, POSTS)
    for parameter, names in fields.parameters.items()
    for name in names
]


def refused(fields: Fields, body: object) -> set[str]:
    error = read_failure(400, {}, json.dumps(body).encode(), attempted="GET /2/tweets")
    assert isinstance(error, BadRequest)
    return set(map(str, fields.refused_by(error.complaints)))


def of_2166(message: str, **parameters: str) -> dict[str, object]:
    """Return a 400 as OpenAPI 2.166 has it."""
    given = {name.replace("tweet_fields", "tweet.fields"): [value] for name, value in parameters.items()}
    return {
        "errors": [{"parameters": given, "message": message}],
        "title": "Invalid Request",
        "detail": "One or more parameters to your request was invalid.",
        "type": "https://api.twitter.com/2/problems/invalid-request",
    }


WORDINGS = {
    "the value and what is accepted": lambda parameter, name, rest: of_2166(
        f"The `{parameter}` query parameter value [{name}] is not one of [{','.join(rest)}]", **{parameter: name}
    ),
    "the whole list repeated": lambda parameter, name, rest: of_2166(
        f"The `{parameter}` query parameter value [{name}] is not one of [{','.join(rest)}]",
        **{parameter: ",".join([*rest, name])},
    ),
    "a list that is cut": lambda parameter, name, rest: of_2166(
        f"The `{parameter}` query parameter value [{name}] is not one of [{','.join(rest[:3])}...", **{parameter: name}
    ),
    "as OpenAPI 2.167 has it": lambda parameter, name, _: {
        "title": "Invalid Request",
        "detail": f"'{name}' is not a valid value for this parameter",
        "parameter": parameter,
        "value": name,
        "type": "https://api.x.com/2/problems/invalid-request",
        "status": 400,
    },
    "in the detail alone": lambda parameter, name, _: {
        "title": "Invalid Request",
        "detail": f'Unknown value "{name}" in the query parameter {parameter}',
        "type": "https://api.x.com/2/problems/invalid-request",
    },
    "only what is accepted": lambda parameter, name, rest: of_2166(
        f"{parameter}[3] must be one of {', '.join(rest)}", **{parameter: ",".join([*rest, name])}
    ),
}


@pytest.mark.parametrize("wording", WORDINGS)
@given(request=st.sampled_from(REQUESTED))
def test_the_name_that_a_400_refuses_is_left_out_and_no_other(wording: str, request: tuple[Fields, FieldName]) -> None:
    fields, (parameter, name) = request
    rest = [each for each in fields.parameters[parameter] if each != name]

    found = refused(fields, WORDINGS[wording](parameter, name, rest))

    assert found == {f"{name} in {parameter}"}
    assert name not in Fields(fields.wanted, fields.refused | {FieldName(parameter, name)}).parameters[parameter]


@pytest.mark.parametrize("parameter", ["tweet.fields", "media.fields", "expansions", "poll.fields", "place.fields"])
def test_a_parameter_that_x_does_not_know_is_left_out_whole(parameter: str) -> None:
    value = ",".join(OF_TWEETS.parameters[parameter])
    message = (
        f"The query parameter [{parameter}] is not one of [expansions,id,max_results,pagination_token,post.fields]"
    )

    assert refused(OF_TWEETS, of_2166(message, **{parameter: value})) == {parameter}


@pytest.mark.parametrize(
    "body",
    [
        of_2166("The `max_results` query parameter value [4] is not between 5 and 100", max_results="4"),
        of_2166("'since_id' must be a tweet id created after 2026-07-31T11:45Z.", since_id="20"),
        of_2166(
            "`max_results` must be at most 100 with `tweet.fields` [context_annotations]",
            max_results="500",
            tweet_fields="context_annotations",
        ),
        of_2166("There were errors processing your request: missing text, id at position 8", query="from:"),
        {"title": "Invalid Request", "detail": "the url of the type is not valid", "status": 400},
        {"errors": [{"code": 25, "message": "Query parameters are missing."}]},
        {"errors": [7, None, {"parameters": ["tweet.fields"]}, {"parameters": {"id": None}, "message": 5}]},
        ["tweet.fields"],
        "tweet.fields",
    ],
)
def test_a_complaint_of_something_else_changes_no_request(body: object) -> None:
    assert refused(OF_TWEETS, body) == set()


KEYS = st.sampled_from(["errors", "parameters", "parameter", "value", "message", "detail", "tweet.fields"])
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(BODIES)
def test_no_body_of_a_400_raises(body: object) -> None:
    for name in refused(OF_TWEETS, body):
        assert name.partition(" in ")[2] in ("", *OF_TWEETS.parameters)


def test_in_the_newer_vocabulary_the_author_comes_by_expansion() -> None:
    assert POSTS.parameters["expansions"] == (
        "attachments.media_keys", "attachments.poll_ids", "geo.place_id", "referenced_posts", "author_id"
    )  # fmt: skip
    assert {"note_post", "created_at"} < set(POSTS.parameters["post.fields"])
    assert not {"author_id", "referenced_tweets", "note_tweet"} & set(POSTS.parameters["post.fields"])
    assert (POSTS.brings_users, OF_TWEETS.brings_users, POSTS.lacking) == (True, False, None)


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        ([("tweet.fields", "author_id")], None),
        ([("tweet.fields", "author_id"), ("expansions", "author_id")], "their author"),
        ([("tweet.fields", "author_id"), ("expansions", "")], "their author"),
        ([("tweet.fields", "created_at")], "their time"),
        ([("tweet.fields", ""), ("post.fields", "")], "their time"),
        ([("expansions", ""), ("media.fields", "")], None),
    ],
)
def test_what_no_tweet_may_lack(names: list[tuple[str, str]], lacking: str | None) -> None:
    assert Fields(OF_TWEETS.wanted, frozenset(FieldName(*name) for name in names)).lacking == lacking


def test_a_renamed_field_is_requested_by_its_newer_name() -> None:
    fields = Fields(OF_TWEETS.wanted, frozenset({FieldName("expansions", "referenced_tweets.id")}))

    assert "referenced_posts" in fields.parameters["expansions"]
