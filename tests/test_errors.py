"""What a user sees fits on one line, in any encoding, with what matters of long words."""

from __future__ import annotations

import io

import pytest

from jaxvalues.errors import agreed, name_list, one_sentence, print_everything, short


def test_a_message_fits_on_a_line() -> None:
    path = "/home/someone/" + "a" * 5000 + "/config.yaml"
    said = one_sentence(f"{path}: no such file\nand a second\tproblem\x1b[31m")
    assert len(said) == 299
    assert said.startswith("/home/someone/aaa")
    assert said.endswith("a/config.yaml: no such file; and a second\\tproblem\\x1b[31m")
    assert one_sentence("word " * 100).endswith("...")
    assert one_sentence("short and plain: ×") == "short and plain: ×"


def test_what_is_said_agrees_with_its_number() -> None:
    assert agreed(1, "answer", "is", "are") == "1 answer is"
    assert agreed(1200, "answer", "is", "are") == "1,200 answers are"
    assert agreed(0, "answer", "is", "are") == "0 answers are"


def test_values_are_shown_short() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert short("a" * 100, 20) == f"'{'a' * 8}...{'a' * 7}'"
    assert short(3) == "3"
    assert short(10**5000) == "a value (int) that is too long to print"
    assert short(circle) == "[[...]]"


def test_names_are_counted() -> None:
    assert name_list("abcde") == "a, b, c and 2 more"


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("ascii", "2 x 3 -> \\u4f60..."), ("latin-1", "2 × 3 -> \\u4f60..."), ("utf-8", "2 × 3 → 你…")],
)
def test_every_encoding_prints_every_character(encoding: str, printed: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_everything(stream, io.StringIO())
    stream.write("2 × 3 → 你…")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == printed
