"""What a terminal or a page is given cannot steer it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pipelines.printable import printable, printable_json

ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf"]))


def test_what_cannot_be_seen_is_spelled_out_and_the_rest_stays() -> None:
    assert printable("é 漢字 🙂\t\n") == "é 漢字 🙂\t\n"
    assert printable("\x1b]0;title\x07 \r \x9b2J \x7f") == r"\x1b]0;title\x07 \r \x9b2J \x7f"
    assert printable(b"name \xff\xfe".decode("utf-8", "surrogateescape")) == r"name \xff\xfe"
    assert printable("\ud800 \u202e \u2028") == r"\ud800 \u202e \u2028"


@given(ANY_TEXT)
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.encode() is not None  # no lone surrogate
    assert all(char in "\n\t" or (char >= " " and not "\x7f" <= char <= "\x9f") for char in shown)


@given(ANY_TEXT)
def test_json_keeps_its_meaning(text: str) -> None:
    shown = printable_json(json.dumps([text], ensure_ascii=False, indent=1))
    assert json.loads(shown) == [text] and "\x9b" not in shown
