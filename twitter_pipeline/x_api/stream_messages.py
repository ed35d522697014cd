"""What comes over the filtered stream: bytes -> lines -> tweets, and the rules of the stream as X tells them."""

import re
from dataclasses import dataclass

from twitter_pipeline.errors import UnreadableAnswer
from twitter_pipeline.stream_rules import StreamRule
from twitter_pipeline.x_api.json_values import JsonValue, as_list, as_object, as_text, decode_json
from twitter_pipeline.x_api.parsing import TweetsPage, read_page_token, read_tweets_page
from twitter_pipeline.x_api.problems import Problem, one_line, read_disconnect, read_problems

LONGEST_LINE = 4_000_000
"""No message is nearly as long: what grows beyond it is no message and is dropped up to its end."""


@dataclass(frozen=True, slots=True)
class RulesAnswer:
    """Rules of an app, and what X did not do of what was asked for."""

    rules: tuple[StreamRule, ...]
    next_token: str | None
    problems: tuple[Problem, ...]


_QUOTE = re.compile(rb'\\.|"', re.DOTALL)


class Lines:
    """Cuts a stream of bytes into lines, however they come in pieces. What follows the last line end is kept back.

    A line feed within a JSON string ends no line. A carriage return before it, as X sends, always does: what follows a
    message that was cut off is read.
    """

    def __init__(self, *, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._overlong = False
        # Of the quotation marks in the rest, up to where they are counted.
        self._quotes, self._counted = 0, 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Take in a piece, and return the lines that end in it, without their ends; an empty one is a heartbeat."""
        *ended, rest = piece.split(b"\n")
        lines: list[bytes] = []
        for part in ended:
            self._extend(part)
            if self._is_in_string() and not self._rest.endswith(b"\r"):
                self._extend(b"\n")
                continue
            if not self._overlong:
                lines.append(bytes(self._rest).strip())
            self._rest.clear()
            self._overlong, self._quotes, self._counted = False, 0, 0
        self._extend(rest)
        return lines

    def _is_in_string(self) -> bool:
        self._quotes += _QUOTE.findall(self._rest[self._counted :]).count(b'"')
        self._counted = len(self._rest)
        return not self._overlong and self._quotes % 2 == 1

    def _extend(self, part: bytes) -> None:
        self._overlong = self._overlong or len(self._rest) + len(part) > self._longest
        if self._overlong:
            self._rest.clear()
        else:
            self._rest += part


def read_message(line: bytes) -> TweetsPage:
    """Read one line of the stream that is no heartbeat: a page with one tweet, or one with problems alone.

    Raises UnreadableAnswer for a line that is no message, StreamEnded or UsageCapped for X's word that it ends the
    stream.
    """
    page = read_tweets_page(line)
    if not page.tweets:
        for problem in page.problems:
            if (error := read_disconnect(problem)) is not None:
                raise error
    return page


def read_stream_rules(body: bytes) -> RulesAnswer:
    """Read a list of rules, or what became of a change of them. Raises UnreadableAnswer when the body is no object."""
    try:
        answer = decode_json(body)
    except ValueError as error:
        raise UnreadableAnswer(f"the body of {len(body)} bytes is no JSON: {one_line(str(error))}") from error
    if not isinstance(answer, dict):
        raise UnreadableAnswer(f"the body of {len(body)} bytes is no JSON object")
    rules = [rule for each in as_list(answer.get("data")) if (rule := _read_rule(each)) is not None]
    meta = as_object(answer.get("meta"))
    return RulesAnswer(
        tuple(rules), read_page_token(meta.get("next_token")), tuple(read_problems(answer.get("errors")))
    )


def _read_rule(value: JsonValue) -> StreamRule | None:
    members = as_object(value)
    rule_id, text = as_text(members.get("id")), as_text(members.get("value"))
    return StreamRule(rule_id, text, as_text(members.get("tag")) or "") if rule_id and text is not None else None
