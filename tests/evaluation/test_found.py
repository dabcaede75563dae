"""What is written and shown of a prediction of a user's own arguments."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.special import logit

from jaxvalues.data.task import STANCE, VALUES, Task
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.user_file import read_user_file
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.found import Found


def found(folder: Path, content: str, probabilities: np.ndarray, task: Task = VALUES) -> Found:
    (folder / "mine.csv").write_bytes(content.encode())
    file = read_user_file(folder / "mine.csv")
    return Found(file, task, logit(probabilities).astype(np.float32), Decision(np.zeros(len(task.labels)), "fixed"))


@pytest.fixture
def probabilities() -> np.ndarray:
    values = np.full((2, 20), 0.125, np.float32)
    values[0, [2, 10]] = 0.75, 0.9999999
    return values


def rows_of(one: Found, folder: Path, format: str, delimiter: str = ",") -> list[list[str]]:
    one.write(folder, format)
    with one.path(folder, format).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_wide(tmp_path: Path, probabilities: np.ndarray) -> None:
    one = found(tmp_path, 'note;premise;Values found\n"a;b";p;old\nc;"q\nr";old\n', probabilities)
    header, first, second = rows_of(one, tmp_path, "wide", ";")
    ours = ["Values found (found)", *(f"P({name})" for name in CATEGORIES)]
    assert header == ["Argument ID", "note", "premise", "Values found", *ours]
    assert first[:5] == ["1", "a;b", "p", "old", f"{CATEGORIES[2]}; {CATEGORIES[10]}"]
    assert second[:5] == ["2", "c", "q\nr", "old", ""]
    np.testing.assert_allclose(np.array([first[5:], second[5:]], float), probabilities, atol=1e-6)


def test_long(tmp_path: Path, probabilities: np.ndarray) -> None:
    one = found(tmp_path, "id,premise\nx,p\ny,q\n", probabilities)
    header, *rows = rows_of(one, tmp_path, "long")
    assert header == ["id", "premise", "Label", "Probability", "Threshold", "Found"]
    assert len(rows) == 40
    assert rows[10] == ["x", "p", CATEGORIES[10], "1.000000", "0.5", "1"]
    assert rows[20] == ["y", "q", CATEGORIES[0], "0.125000", "0.5", "0"]


@pytest.mark.parametrize("format", ["wide", "long"])
def test_columns_of_the_user_stay_whatever_their_names_are(
    tmp_path: Path, probabilities: np.ndarray, format: str
) -> None:
    content = "premise,Label,Found,Values found\na,gold,yes,mine\nb,other,no,his\n"
    header, first, *_ = rows_of(found(tmp_path, content, probabilities), tmp_path, format)
    assert header[1:5] == ["premise", "Label", "Found", "Values found"]
    assert first[1:5] == ["a", "gold", "yes", "mine"]
    ours = (
        ["Label (found)", "Probability", "Threshold", "Found (found)"] if format == "long" else ["Values found (found)"]
    )
    assert header[5 : 5 + len(ours)] == ours
    # A file that was predicted before gets the same columns, not more.
    (tmp_path / "again").mkdir()
    once = ",".join(header) + "\n" + ",".join(first).replace(CATEGORIES[2] + "; ", "") + "\n"
    assert rows_of(found(tmp_path / "again", once, probabilities[:1]), tmp_path / "again", format)[0] == header


def test_json(tmp_path: Path, probabilities: np.ndarray) -> None:
    one = found(tmp_path, "id,premise,note\nx,é,n\ny,q,m\n", probabilities)
    one.write(tmp_path, "json")
    content = json.loads(one.path(tmp_path, "json").read_text(encoding="utf-8"))
    assert content["thresholds"][CATEGORIES[0]] == 0.5
    assert content["threshold_logits"][CATEGORIES[0]] == 0.0
    first, second = content["arguments"]
    assert first["found"] == [CATEGORIES[2], CATEGORIES[10]]
    assert (first["id"], first["premise"], first["columns"]["note"]) == ("x", "é", "n")
    assert second["found"] == []
    assert second["probabilities"] == dict.fromkeys(CATEGORIES, 0.125)
    assert len(content["assumed"]) == 2


def test_the_mark_that_excel_needs_is_kept(tmp_path: Path, probabilities: np.ndarray) -> None:
    one = found(tmp_path, "\ufeffpremise\nfür\nq\n", probabilities)
    one.write(tmp_path, "wide")
    assert one.path(tmp_path, "wide").name == "values-mine.csv"
    assert one.path(tmp_path, "wide").read_bytes().startswith(b"\xef\xbb\xbfArgument ID,premise,")


@pytest.mark.parametrize("width", [60, 80])
def test_the_screen(tmp_path: Path, width: int, probabilities: np.ndarray) -> None:
    many = np.tile(probabilities, (12, 1))
    premises = "".join(f'"\x1b[31mlong {"word " * 40}"\n' for _ in range(24))
    screen = Console(file=io.StringIO(), width=width)
    found(tmp_path, "premise\n" + premises, many).render(screen)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert f"{CATEGORIES[10]} (1.00), {CATEGORIES[2]} (0.75)" in " ".join(" ".join(lines).split())
    assert "none; the most probable is" in lines[3]
    assert lines[-1] == "... and 4 more arguments"
    assert "\x1b" not in screen.file.getvalue()


def test_a_stance_is_one_or_the_other(tmp_path: Path) -> None:
    one = found(tmp_path, "premise,conclusion\np,c\nq,d\n", np.array([[0.75], [0.25]], np.float32), STANCE)
    _, first, second = rows_of(one, tmp_path, "wide")
    assert (first[3], second[3]) == ("in favor of", "against")
    screen = Console(file=io.StringIO(), width=80)
    one.render(screen)
    assert "against (0.75)" in screen.file.getvalue()
