"""Rules of the stream: each account in one of them, none too long, and few changes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.stream_rules import (
    TAG_PREFIX,
    RuleChanges,
    RuleLimits,
    StreamRule,
    pack,
    plan_rules,
    tag_of,
    usernames_of,
    value_of,
)

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=15)
WATCH_LISTS = st.lists(NAMES, unique=True, max_size=60)
LIMITS = RuleLimits(characters=120, rules=1_000)
OTHERS = (StreamRule("1", "cats has:images", "cats"), StreamRule("2", "from:nasa", ""))


def apply(changes: RuleChanges, existing: Sequence[StreamRule]) -> list[StreamRule]:
    """Do what X does with the changes."""
    ids = count(max((int(rule.id) for rule in existing), default=2) + 1)
    left = [rule for rule in existing if rule.id not in changes.delete]
    return [*left, *(StreamRule(str(next(ids)), new.value, new.tag) for new in changes.add)]


def named(rules: Iterable[StreamRule]) -> Counter[str]:
    return Counter(name for rule in rules if rule.tag.startswith(TAG_PREFIX) for name in usernames_of(rule.value))


def grown(*watch_lists: Sequence[str], limits: RuleLimits = LIMITS) -> list[StreamRule]:
    rules: list[StreamRule] = list(OTHERS)
    for watched in watch_lists:
        rules = apply(plan_rules(watched, rules, limits), rules)
    return rules


@given(st.lists(WATCH_LISTS, min_size=1, max_size=5))
def test_after_any_changes_of_the_watch_list_every_account_is_in_exactly_one_rule_and_none_is_too_long(
    watch_lists: list[list[str]],
) -> None:
    rules = grown(*watch_lists)

    assert named(rules) == Counter(watch_lists[-1])
    assert all(len(rule.value) <= LIMITS.characters for rule in rules)
    assert all(rule.tag == tag_of(rule.value) for rule in rules[len(OTHERS) :])
    assert tuple(rules[: len(OTHERS)]) == OTHERS


@given(st.lists(WATCH_LISTS, min_size=1, max_size=5))
def test_in_step_nothing_is_changed(watch_lists: list[list[str]]) -> None:
    rules = grown(*watch_lists)
    changes = plan_rules(reversed(watch_lists[-1]), rules, LIMITS)

    assert (changes.add, changes.delete, changes.listened) == ((), (), len(watch_lists[-1]))


@given(WATCH_LISTS, WATCH_LISTS)
def test_rules_that_are_at_least_half_full_and_still_wanted_stay(before: list[str], after: list[str]) -> None:
    rules = grown(before)
    changes = plan_rules(after, rules, LIMITS)
    deleted = [rule for rule in rules if rule.id in changes.delete]

    for rule in deleted:
        small = 2 * len(rule.value) < LIMITS.characters
        assert small or not set(usernames_of(rule.value)) <= set(after)


@given(st.lists(NAMES, unique=True, min_size=1, max_size=60))
def test_accounts_that_join_one_by_one_cost_few_changes_and_few_rules(names: list[str]) -> None:
    rules: list[StreamRule] = []
    for upto in range(1, len(names) + 1):
        changes = plan_rules(names[:upto], rules, LIMITS)
        assert (len(changes.add) <= 2, len(changes.delete) <= 2) == (True, True)
        rules = apply(changes, rules)

    least = -(-sum(len(f"from:{name} OR ") for name in names) // LIMITS.characters)
    assert len(rules) <= 2 * least + 1


@given(st.lists(NAMES, unique=True, min_size=1, max_size=60), st.integers(3, 6))
def test_where_the_rules_do_not_suffice_they_are_filled_and_the_rest_is_named(names: list[str], most: int) -> None:
    limits = RuleLimits(characters=120, rules=most)
    rules = grown(names[::2], names, limits=limits)
    changes = plan_rules(names, rules, limits)
    heard = named(rules)

    assert len(rules) <= most
    assert set(heard) | set(changes.left_out) == set(names)
    assert set(heard.values()) <= {1}
    assert not set(heard) & set(changes.left_out)
    assert not changes.left_out or len(rules) == most


@given(WATCH_LISTS, st.integers(20, 512))
def test_queries_name_every_account_once_in_order_and_none_is_too_long_or_could_take_the_next(
    names: list[str], characters: int
) -> None:
    queries = pack(names, characters)

    assert [name for query in queries for name in query] == names
    assert all(len(value_of(query)) <= characters for query in queries)
    assert all(len(value_of([*query, after[0]])) > characters for query, after in pairwise(queries))


def test_a_thousand_rules_hold_forty_two_thousand_accounts_of_the_longest_names() -> None:
    names = [f"account_{number:07}" for number in range(42_000)]
    changes = plan_rules(names, [], RuleLimits())

    assert (changes.rules, changes.listened, changes.left_out) == (1_000, 42_000, ())
    assert max(len(rule.value) for rule in changes.add) <= 1_024


def test_a_rule_of_ours_that_somebody_has_changed_is_written_anew() -> None:
    broken = StreamRule("7", "from:alpha -is:retweet", f"{TAG_PREFIX}123")
    changes = plan_rules(["Alpha"], [broken], LIMITS)

    assert [(rule.value, rule.tag) for rule in changes.add] == [("from:alpha", tag_of("from:alpha"))]
    assert changes.delete == ("7",)


def test_an_account_that_two_rules_name_stays_in_the_first() -> None:
    rules = [StreamRule(str(number), "from:alpha", tag_of("from:alpha")) for number in range(2)]

    assert plan_rules(["alpha"], rules, LIMITS).delete == ("1",)


def test_an_empty_watch_list_leaves_no_rule_of_ours() -> None:
    rules = grown(["alpha", "beta"])

    assert apply(plan_rules([], rules, LIMITS), rules) == list(OTHERS)
