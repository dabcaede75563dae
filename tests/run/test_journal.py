"""What a frozen language model answered: not asked again after a stop, and shared by runs that ask the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from rich.console import Console

from jaxvalues.errors import UserError
from jaxvalues.run import journal
from jaxvalues.run.base import Base
from jaxvalues.run.journal import forget_answers
from jaxvalues.run.prediction import Predicted, predict_split
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System
from jaxvalues.run.watch import Watch
from jaxvalues.training.progress import ProgressLine

pytestmark = pytest.mark.usefixtures("quick_compiles")

SAMPLES = {"generation": {"max_new_tokens": 3, "samples": 2, "temperature": 1.0}}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "scored": ("answer", "gpt2", {}),
    "likelihood": ("answer", "t5", {}),
    "generated": ("open_answer", "t5", {"scoring": "generation", "max_new_tokens": 3}),
    "sampled": ("label_list", "gpt2", SAMPLES),
    "chained": ("chain_of_thought", "gpt2", SAMPLES),
}
NUMBER = 3
"""Arguments, two in a batch."""
Add = Callable[..., None]


def system(of: str, **changes: dict[str, Any]) -> System:
    kind, network, formulation = KINDS[of]
    longer = {"config": {**tiny.NETWORKS[network], "n_positions": 400}}
    config = tiny.question_config(
        kind, network, {"model": longer, "data": {"max_length": 380, "buckets": [380]}, "formulation": formulation},
        {"tuning": {"method": "none"}, "training": {"eval_batch_size": 2}}, changes,
    )  # fmt: skip
    made = tiny.system(config)
    made.identity = "weights"
    return made


def predicted(one: System, folder: Path | None = None, screen: Console | None = None) -> Predicted:
    split = tiny.split().subset(range(NUMBER))
    tokens = one.formulation.encode(split.arguments, split.labels)
    weights = initial_weights(one, Base({}, None, "random"), 0)
    with ProgressLine(screen or Console(file=io.StringIO()), "row", len(tokens)) as line:
        return predict_split(one, weights, split, tokens, Watch(line, folder=folder))


class KilledError(Exception):
    pass


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Counts the batches that are computed and kept; after `allow(n)` the run is killed while it writes the next."""
    whole, left, counted = journal.Journal.add, [1000], []

    def add(self: Any, rows: Any, answers: Any) -> None:
        if len(counted) == left[0]:
            with self.path.open("a") as file:
                file.write('{"rows": [0, 1], "answers": [[[0.')
            raise KilledError
        counted.append(len(rows))
        whole(self, rows, answers)

    def allow(number: int) -> list[int]:
        left[0] = number
        counted.clear()
        return counted

    monkeypatch.setattr(journal.Journal, "add", add)
    return allow


@pytest.mark.main_cases("scored", "chained")
@pytest.mark.parametrize("of", KINDS)
def test_a_killed_run_asks_only_what_is_missing(of: str, batches: Any, tmp_path: Path) -> None:
    one = system(of)
    alone = predicted(one)
    counted = batches(1000)
    predicted(one, tmp_path / "whole")
    total = len(counted)
    assert total >= 2
    batches(total - 1)
    with pytest.raises(KilledError):
        predicted(one, tmp_path / "answers")
    counted, screen = batches(1000), Console(file=io.StringIO(), width=200)
    again = predicted(one, tmp_path / "answers", screen)
    assert len(counted) == 1
    np.testing.assert_array_equal(again.logits, alone.logits)
    assert again.record == alone.record
    assert again.generated == alone.generated
    if of != "chained":
        assert "were done before" in screen.file.getvalue()

    other = system(of, runtime={"features": str(tmp_path / "answers")})  # another run, which asks the same
    counted = batches(0)
    np.testing.assert_array_equal(predicted(other, tmp_path / "other").logits, alone.logits)
    assert not (tmp_path / "other").exists()

    (tmp_path / "answers/mine.jsonl").write_text("")
    for name in ("whole", "answers"):
        forget_answers(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["mine.jsonl"]
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"formulation": {"descriptions": "definition"}},
        {"formulation": {"verbalizer": {"yes": ["No"], "no": ["Yes"]}}},
        {"training": {"eval_batch_size": 1}},
        {"model": {"config": {**tiny.GPT2, "n_positions": 400, "layer_norm_epsilon": 1e-3}}},
    ],
    ids=["descriptions", "answer words", "batch size", "network"],
)
def test_other_questions_are_asked(changes: dict[str, Any], batches: Any, tmp_path: Path) -> None:
    predicted(system("scored"), tmp_path)
    batches(0)
    predicted(system("scored"), tmp_path)
    with pytest.raises(KilledError):
        predicted(system("scored", **changes), tmp_path)


def test_draws_of_another_seed_are_not_shared(batches: Any, tmp_path: Path) -> None:
    predicted(system("sampled"), tmp_path)
    one = system("sampled")
    one.config = one.config.model_copy(update={"seed": 1})
    batches(0)
    with pytest.raises(KilledError):
        predicted(one, tmp_path)


def test_what_trains_and_weights_without_a_name_are_not_kept(tmp_path: Path) -> None:
    one = system("scored")
    one.identity = None
    predicted(one, tmp_path)
    predicted(system("scored", tuning={"method": "norms"}), tmp_path)
    predicted(system("scored", formulation={"verbalizer": {"soft": True}}), tmp_path)  # trains with method none
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"jsonl: cannot be written \(.*\); the same command resumes"):
        predicted(system("scored"), tmp_path / "file")


def test_what_another_prediction_kept_stays(tmp_path: Path) -> None:
    """A prediction that was stopped goes on, whatever was predicted meanwhile."""
    mine, other = ("a" * 32, "b" * 32)
    for name in (mine, other):
        (tmp_path / f"{name}.{'0' * 8}.jsonl").write_text("{}")
    forget_answers(tmp_path, {mine})
    assert [path.name[:32] for path in tmp_path.iterdir()] == [other]
    forget_answers(tmp_path)
    assert not tmp_path.exists()
