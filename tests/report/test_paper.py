"""The study of 2024 beside ours: its rows, and its three questions."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from reports import becomes

from jaxvalues.report.paper import ROWS, paper_row, three_questions
from jaxvalues.statistics.interval import Interval
from jaxvalues.study.results import StudyResults
from jaxvalues.study.schema import Scientific, Study

PRETRAINED: dict[str, Any] = {"model": {"path": "some/model"}}
CLS = {"base": "configs/paper/roberta-cls.yaml"}


def study(systems: dict[str, Any], **keys: Any) -> Study:
    return Study(question="?", scientific=Scientific(systems=systems), **keys)


def test_rows_of_the_study_are_its_own_configs_alone() -> None:
    own = study({"a": CLS, "b": {**CLS, "optimizer.learning_rate": 1e-3}})
    assert paper_row(own, "a") == "RoBERTa-CLS"
    assert paper_row(own, "b") is None
    assert paper_row(own, "mean of a") is None
    assert ROWS["RoBERTa-CLS"] == 0.54


@pytest.mark.parametrize(
    "keys",
    [
        {"changes": {"training.epochs": 1}},
        {"changes": {"data": {"fraction": 0.05, "dir": "x"}}},
        {"changes": {"model.path": "minilm"}},
        {"budget": {"trainable_parameters": 30000}},
        {"nuisance": {"keys": {"optimizer.learning_rate": [1e-5, 2e-5]}}},
        {"repeated": {"seed": [0, 1], "formulation.template": ["cls", "joined"]}},
    ],
)
def test_a_changed_config_is_no_row(keys: dict[str, Any]) -> None:
    assert paper_row(study({"a": CLS}, **keys), "a") is None


def test_where_the_data_are_and_what_is_held_out_changes_no_row() -> None:
    changes = {"data.dir": "x", "data": {"held_out": "validation"}, "logging.tensorboard": False, "runtime": {}}
    assert paper_row(study({"a": CLS}, changes=changes, replicate=True), "a") == "RoBERTa-CLS"


def test_a_combination_of_axes_is_no_row() -> None:
    axes = Study(question="?", base=CLS["base"], scientific=Scientific(axes={"loss.kind": ["bce", "focal"]}))
    assert paper_row(axes, "bce") is None


def test_random_weights_answer_nothing(found: StudyResults) -> None:
    first, second, third = (answer for _, answer in three_questions(found))
    assert "no contrast of this study compares a fine-tuned system with a prompted one" in first
    assert second == "Not decided by these data: no system here starts from pre-trained weights."
    assert third == "Not decided by these data: no aligned language model was run."
    empty = {name: replace(one, runs=(), intervals={}) for name, one in found.systems.items()}
    _, second, _ = (answer for _, answer in three_questions(replace(found, systems=empty, contrasts=())))
    assert second == "Not decided by these data: nothing is finished."


def test_a_classifier_with_a_soft_prompt_is_not_prompted(found: StudyResults, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = {**PRETRAINED, "tuning": {"method": "prompt"}}
    becomes(monkeypatch, found, strong={**PRETRAINED, "tuning": {"method": "full"}}, weak=prompt)
    assert three_questions(found)[0][1].startswith("Not decided by these data: no contrast")
    for kind in ("masked_choice", "answer"):
        asked = {**prompt, "formulation": {"kind": kind}}
        becomes(monkeypatch, found, strong={**PRETRAINED, "tuning": {"method": "full"}}, weak=asked)
        assert three_questions(found)[0][1].startswith("On test: strong is better than weak by")


def test_what_is_known_is_adjusted_for_the_number_of_systems(
    found: StudyResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(monkeypatch, found, strong=PRETRAINED, weak=PRETRAINED)
    second = three_questions(found)[1][1]
    assert re.match(r"On test, naming every category every time has an official F1 of \.2\d\d\. Above it: ", second)
    assert "same" not in second  # it starts from random weights
    assert "adjusted over 2 systems by Holm" in second

    def with_intervals(*ends: tuple[float, float]) -> StudyResults:
        systems = {
            name: replace(one, intervals={"test": Interval(sum(at) / 2, (at[1] - at[0]) / 2 / 1.96, *at)})
            for (name, one), at in zip(found.systems.items(), ends, strict=True)
        }
        return replace(found, systems=systems)

    # An interval whose end is just above the baseline is enough for one system, and not for the best of three.
    becomes(monkeypatch, found, strong=PRETRAINED)
    base = float(re.search(r"official F1 of (\.\d+)", second).group(1))
    just, not_at_all, below = (base + 0.002, base + 0.1), (base - 0.05, base + 0.05), (base - 0.2, base - 0.1)
    assert "Above it: strong" in three_questions(with_intervals(just, just, just))[1][1]
    becomes(monkeypatch, found, strong=PRETRAINED, weak=PRETRAINED, same=PRETRAINED)
    among = three_questions(with_intervals(just, not_at_all, below))[1][1]
    assert "Above it" not in among
    assert "Below it: same, " in among
    assert "Not decided: strong, " in among


def test_an_aligned_language_model_answers_the_third_question(
    found: StudyResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = {**PRETRAINED, "formulation": {"kind": "answer", "chat": True}, "tuning": {"method": "none"}}
    becomes(monkeypatch, found, weak=chat, strong=PRETRAINED)
    third = three_questions(found)[2][1]
    assert "On test: strong is better than weak by" in third
    assert "same" not in third
    becomes(monkeypatch, found, weak=chat, strong={**chat, "formulation": {"kind": "answer"}})  # the same model
    assert "no contrast of this study" in three_questions(found)[2][1]
    becomes(monkeypatch, found, weak=chat, strong=PRETRAINED)
    alone = three_questions(replace(found, contrasts=()))[2][1]
    assert re.search(r"no contrast of this study .* Above it: weak, \.\d+", alone)
    becomes(monkeypatch, found, weak=chat)
    assert "no contrast of this study" in three_questions(found)[2][1]  # with random weights alone
