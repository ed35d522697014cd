"""A JSON request: every kind of mistake, all of them at once, and what merges."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.errors import InvalidRequest, Mistake
from twitter_pipeline.request import (
    EXAMPLE,
    FULL,
    MOST_BYTES,
    MOST_ENTRIES,
    FetchMode,
    FetchRequest,
    parse_request,
    read_request,
)

LIMIT_EXPECTED = '"full", "new", or "limit:N" with N of 1 or more'
NAME_EXPECTED = "1 to 15 letters, digits or underscores"


def mistakes(entries: object) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidRequest) as raised:
        read_request(entries)
    return [(each.where, each.given, each.expected) for each in raised.value.mistakes]


def mistakes_in(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(text)
    return [(each.where, each.given, each.expected) for each in raised.value.mistakes]


def test_a_request_is_read() -> None:
    text = (
        '[{"username": "elonmusk", "track_after": true, "fetch_mode": "full"},'
        ' {"username": "nasa", "track_after": false, "fetch_mode": "limit:200"}]'
    )

    assert parse_request(text) == (FetchRequest("elonmusk", True, FULL), FetchRequest("nasa", False, FetchMode(200)))


def test_the_example_is_a_valid_request() -> None:
    requests = read_request(EXAMPLE)

    assert [request.as_json() for request in requests] == EXAMPLE


def test_what_is_left_out_is_not_tracked_and_full() -> None:
    assert read_request([{"username": "nasa"}]) == (FetchRequest("nasa", track_after=False, fetch_mode=FULL),)


@pytest.mark.parametrize("username", ["nasa", "@nasa", "NASA", "  nasa\n", " @NaSa "])
def test_at_signs_case_and_blanks_do_not_matter(username: str) -> None:
    assert read_request([{"username": username}]) == (FetchRequest("nasa"),)


@pytest.mark.parametrize("fetch_mode", ["limit:7", " LIMIT:7 ", "limit:007"])
def test_modes_are_read_whatever_their_case(fetch_mode: str) -> None:
    assert read_request([{"username": "nasa", "fetch_mode": fetch_mode}]) == (
        FetchRequest("nasa", False, FetchMode(7)),
    )


@pytest.mark.parametrize(
    ("username", "shown"),
    [
        ("", '""'),
        ("@", '"@"'),
        ("@@nasa", '"@@nasa"'),
        ("sixteen_letters_", '"sixteen_letters_"'),
        ("na sa", '"na sa"'),
        ("näsa", '"n\\xe4sa"'),
        ("nasa\u202e", '"nasa\\u202e"'),
        ("\u0661\u0662\u0663", '"\\u0661\\u0662\\u0663"'),
        ("na\0sa \x1b[2J", '"na\\u0000sa \\u001b[2J"'),
        ("\u202e\ud83d", "'\\u202e\\ud83d'"),
    ],
)  # fmt: skip
def test_a_bad_username_is_shown_with_what_is_expected(username: object, shown: str) -> None:
    assert mistakes([{"username": username}]) == [("entry 1, username", shown, NAME_EXPECTED)]


@pytest.mark.parametrize(
    ("username", "shown"), [(None, "null"), (12, "12"), (True, "true"), (1.5, "1.5"), (["nasa"], '["nasa"]')]
)
def test_a_username_that_is_no_text_wants_its_quotes(username: object, shown: str) -> None:
    assert mistakes([{"username": username}]) == [("entry 1, username", shown, f"{NAME_EXPECTED}, in quotes")]


@pytest.mark.parametrize(
    "fetch_mode",
    ["", "all", "limit", "limit:", "limit:0", "limit:-1", "limit:1.5", "limit: 5", "limit:1e3", "limit:9999999999",
     "limit:\u0663", None, 5, True, {"limit": 5}],
)  # fmt: skip
def test_a_bad_mode_is_refused(fetch_mode: object) -> None:
    ((where, _, expected),) = mistakes([{"username": "nasa", "fetch_mode": fetch_mode}])

    assert (where, expected) == ("entry 1 (nasa), fetch_mode", LIMIT_EXPECTED)


@pytest.mark.parametrize("track_after", [None, 0, 1, "true", "yes", []])
def test_track_after_is_true_or_false(track_after: object) -> None:
    ((where, _, expected),) = mistakes([{"username": "nasa", "track_after": track_after}])

    assert (where, expected) == ("entry 1 (nasa), track_after", "true or false")


def test_all_mistakes_are_listed_with_their_places() -> None:
    entries = [
        {"username": "nasa", "fetch_mode": "some", "track_after": "no"},
        "esa",
        {"user_name": "esa"},
        {"username": "ok"},
        {"username": "esa", "mode": "full"},
    ]

    assert mistakes(entries) == [
        ("entry 1 (nasa), track_after", '"no"', "true or false"),
        ("entry 1 (nasa), fetch_mode", '"some"', LIMIT_EXPECTED),
        ("entry 2", '"esa"', "an object with a username"),
        ("entry 3, username", "nothing", NAME_EXPECTED),
        ('entry 3, field "user_name"', "an unknown field", "one of username, track_after, fetch_mode"),
        ('entry 5 (esa), field "mode"', "an unknown field", "one of username, track_after, fetch_mode"),
    ]


@pytest.mark.parametrize("entries", [{"username": "nasa"}, "nasa", 5, None, True])
def test_a_request_is_a_list(entries: object) -> None:
    ((where, _, expected),) = mistakes(entries)

    assert (where, expected.startswith("a list of entries, such as [{")) == ("request", True)


def test_an_empty_request_is_a_mistake() -> None:
    assert mistakes([]) == [("request", "an empty list", "at least one entry")]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1, column 1"),
        ('[{"username": "nasa"}', "line 1, column 22"),
        ('[\n  {"username": "nasa",}\n]', "line 2, column 22"),
        (b"\xff\xfe", "request"),
        ('[{"username": "nasa"}]'.encode("utf-16"), "request"),
        ("[NaN]", "line 1, column 2"),
    ],
)
def test_text_that_is_no_json_is_told_by_line_and_column(text: str | bytes, where: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_request(text)

    assert [each.where for each in raised.value.mistakes] == [where]


def test_a_field_that_stands_twice_in_an_entry_is_a_mistake() -> None:
    text = '[{"username": "nasa", "fetch_mode": "limit:5", "fetch_mode": "full"}, {"x": 1, "username": "esa", "x": 2}]'
    with pytest.raises(InvalidRequest) as raised:
        parse_request(text)

    assert [(each.where, each.given) for each in raised.value.mistakes] == [
        ('entry 1 (nasa), field "fetch_mode"', "the field more than once"),
        ('entry 2 (esa), field "x"', "an unknown field"),
        ('entry 2 (esa), field "x"', "the field more than once"),
    ]


@pytest.mark.parametrize("depth", [900, 1_000, 1_010, 1_023, 5_000, 1_000_000])
def test_deep_nesting_is_refused_like_any_other_mistake(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"username":', "}")):
        with pytest.raises(InvalidRequest):
            parse_request(opening * depth + "1" + closing * depth)


def test_a_hundred_thousand_entries_are_read_and_their_mistakes_all_counted() -> None:
    good = [{"username": f"user_{number}", "fetch_mode": "limit:5"} for number in range(100_000)]
    bad = [{**entry, "fetch_mode": "some"} for entry in good]

    assert len(parse_request(json.dumps(good))) == 100_000
    with pytest.raises(InvalidRequest) as raised:
        parse_request(json.dumps(bad))
    assert len(raised.value.mistakes) == 100_000
    assert len(str(raised.value)) < 10_000


def test_more_entries_than_a_request_may_have_are_one_mistake() -> None:
    entries = [{"username": "nasa"}] * (MOST_ENTRIES + 1)
    message = ("request", "100,001 entries", "at most 100,000 entries; make several requests of it")

    assert mistakes(entries) == [message]
    assert mistakes_in(json.dumps(entries)) == [message]
    assert mistakes_in(" " * MOST_BYTES + "[]") == [("request", "more than 16 MiB of JSON", message[2])]


def test_the_message_counts_shows_fifty_and_says_that_nothing_was_called() -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_request([{}] * 60)

    lines = str(raised.value).splitlines()
    assert lines[0] == "The request has 60 mistakes; no call was made."
    assert (len(lines), lines[-1]) == (52, "  ... and 10 more")


def test_a_long_value_is_cut_to_fit_a_line() -> None:
    ((_, given, _),) = mistakes([{"username": "x" * 1_000_000}])

    assert (len(given), given[-3:]) == (60, "...")


@pytest.mark.parametrize(
    ("modes", "merged"),
    [
        (("limit:5", "limit:9"), FetchMode(9)),
        (("limit:9", "limit:5"), FetchMode(9)),
        (("full", "limit:5"), FULL),
        (("limit:5", "full"), FULL),
    ],
)
def test_the_same_account_twice_takes_the_wider_mode(modes: tuple[str, str], merged: FetchMode) -> None:
    entries = [{"username": name, "fetch_mode": mode} for name, mode in zip(("nasa", "@NASA"), modes, strict=True)]

    assert read_request(entries) == (FetchRequest("nasa", False, merged),)


def test_the_same_account_twice_is_tracked_if_either_says_so_and_keeps_its_place() -> None:
    entries = [
        {"username": "nasa", "fetch_mode": "limit:5"},
        {"username": "esa"},
        {"username": "Nasa", "track_after": True, "fetch_mode": "limit:2"},
    ]

    assert read_request(entries) == (FetchRequest("nasa", True, FetchMode(5)), FetchRequest("esa"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.none() | st.integers(1, 9)), min_size=1))
def test_merging_is_the_same_in_any_order(entries: list[tuple[str, bool, int | None]]) -> None:
    as_json = [FetchRequest(name, track, FetchMode(limit)).as_json() for name, track, limit in entries]

    assert set(read_request(as_json)) == set(read_request(as_json[::-1]))
    assert read_request(as_json) == read_request([each.as_json() for each in read_request(as_json)])


def attempt(
    read: Callable[[], tuple[FetchRequest, ...]],
) -> tuple[tuple[FetchRequest, ...] | None, InvalidRequest | None]:
    """Return the request, or the one error that there may be."""
    try:
        return read(), None
    except InvalidRequest as error:
        return None, error


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.sampled_from(["username", "track_after", "fetch_mode"]) | st.integers(), inner)
    ),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {}, optional={"username": ANYTHING | st.just("nasa"), "track_after": ANYTHING, "fetch_mode": ANYTHING}
)


@given(ANYTHING | st.lists(NEARLY, max_size=4))
def test_whatever_is_given_the_answer_is_a_request_or_a_list_of_mistakes(entries: Any) -> None:
    requests, error = attempt(lambda: read_request(entries))

    assert (requests is None) != (error is None)
    if error is not None:
        assert error.mistakes
        assert all(isinstance(each, Mistake) and len(each.given) <= 60 for each in error.mistakes)
        assert all(line.isascii() and line.isprintable() for line in str(error).splitlines())


@given(st.text() | st.binary() | ANYTHING.map(lambda value: json.dumps(value, default=str, skipkeys=True)))
def test_whatever_text_is_given_nothing_else_is_raised(text: str | bytes) -> None:
    requests, error = attempt(lambda: parse_request(text))

    assert (requests is None) != (error is None)
