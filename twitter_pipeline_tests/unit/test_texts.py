"""Text that strangers wrote, as Markdown that shows it and makes nothing of it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from twitter_pipeline.texts import as_code

HOSTILE = [
    "![x](http://evil.example/x.png)",
    "[x](javascript:alert(1)) <javascript:alert(1)> [x]: http://evil.example",
    "<img src=http://evil.example onerror=alert(1)><script>alert(1)</script>&lt;b&gt;",
    "http://evil.example www.evil.example me@evil.example",
    "```\n# x\n```\n\n    x\n\n- x\n> x\n---",
    "| a | b |\n|---|---|\n| c | d |",
    "` ![x](http://evil.example) `` ![x](http://evil.example) ``` ![x](http://evil.example)",
    "`", "``", "a`", "`a", " ` ` ", "~~~x", "\\` ![x](y) \\`",
]  # fmt: skip

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def read(markdown: str) -> list[str]:
    """Return the types of all parts of a Markdown text, and the code in it."""
    return [
        part
        for token in MARKDOWN.parse(markdown)
        for part in ([f"{each.type} {each.content}" for each in token.children or []] or [token.type])
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("before", ["", "- ", "Says: "])
def test_nothing_in_a_text_of_strangers_becomes_active(text: str, before: str) -> None:
    parts = [each for each in read(before + as_code(text)) if each.split()[0] not in ("text", "paragraph_open")]
    around = {"paragraph_close", "bullet_list_open", "list_item_open", "list_item_close", "bullet_list_close"}

    assert [each for each in parts if each not in around] == [f"code_inline {' '.join(text.split())}"]


@given(st.text(alphabet=st.sampled_from("`ab \n\t\\|*_[]()<>!&;#-~=.:/@\u00a0\u2028\ufeff")))
@example("")
def test_every_text_is_shown_whole_in_one_line(text: str) -> None:
    line = " ".join(text.split())

    assert read(as_code(text)) == (["paragraph_open", f"code_inline {line}", "paragraph_close"] if line else [])
