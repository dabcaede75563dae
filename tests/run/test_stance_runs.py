"""Runs of the study's side task, the stance: trained, scored, predicted again, refused where values are compared."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from runs import command, metrics
from small_runs import Lab

from jaxvalues.data.loading import load_split
from jaxvalues.data.task import STANCE
from jaxvalues.errors import ConfigError
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.run.predict import predict

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

T5 = {"model_type": "t5", "d_model": 64, "d_kv": 32, "d_ff": 128, "num_heads": 2, "num_layers": 2}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 80}
PROMPT = "tuning={method: prompt, length: 4}"
STANCES = {
    "classified": (),
    "at the mask": ("formulation={kind: masked_choice}", PROMPT),
    "answered by gpt2": ("formulation={kind: answer}", PROMPT, f"model.config={json.dumps(GPT2)}"),
    "answered by t5": (
        "formulation={kind: answer, verbalizer: {calibrate: true}}",
        PROMPT,
        f"model.config={json.dumps(T5)}",
    ),
}


def train_stance(lab: Lab, case: str) -> tuple[Path, str]:
    """A short run of the stance; done once."""
    return lab.train(f"stance {case}", "data.task=stance", "training.epochs=1", *STANCES[case])


@pytest.mark.slow
@pytest.mark.main_cases("classified")
@pytest.mark.parametrize("case", STANCES)
def test_a_stance_is_learnt_and_scored_by_its_accuracy(case: str, small_lab: Lab) -> None:
    folder, printed = train_stance(small_lab, case)
    assert "accuracy" in printed
    predicted = read_predictions(folder / "predictions-test.tsv", STANCE.labels)
    split = STANCE.relabel(load_split("test", source="sample"))
    assert predicted.ids == split.ids
    scores = json.loads((folder / "scores.json").read_text())
    test = scores["splits"]["test"]
    assert test["accuracy"] == pytest.approx((predicted.probabilities == split.labels).mean())
    assert test["majority_accuracy"] == pytest.approx(np.bincount(split.labels[:, 0]).max() / len(split))
    assert len(np.unique(read_predictions(folder / "probabilities-test.tsv", STANCE.labels).probabilities)) > 1

    held_out = {line["step"]: line["accuracy"] for line in metrics(folder) if line["kind"] == "held_out"}
    assert scores["step"] == max(held_out, key=held_out.get)
    assert scores["held_out"]["accuracy"] == pytest.approx(held_out[scores["step"]])


@pytest.mark.slow
def test_a_run_of_the_stance_predicts_what_it_wrote(small_lab: Lab, tmp_path: Path) -> None:
    folder, _ = train_stance(small_lab, "classified")
    scored = predict(folder, split="test", out=tmp_path)
    for name in ("predictions-test.tsv", "probabilities-test.tsv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert scored.to_json() == json.loads((folder / "scores.json").read_text())["splits"]["test"]
    with pytest.raises(ConfigError, match=r"data\.task"):
        predict(folder, split="test", out=tmp_path, overrides=("data.task=values",))


@pytest.mark.slow
def test_what_is_for_values_refuses_a_run_of_the_stance(small_lab: Lab, tmp_path: Path) -> None:
    folder, _ = train_stance(small_lab, "classified")
    truth = files("jaxvalues.data") / "sample/labels-test.tsv"
    refused = {
        ("export", folder, tmp_path / "hf", "--to", "hf"): (2, "only runs of the task values"),
        ("ensemble", folder, tmp_path, "--out", tmp_path / "both"): (2, "only runs of the task values"),
        ("score", "--truth", truth, "--run", folder / "predictions-test.tsv"): (
            1,
            "the column 'in favor of' is no category",
        ),
    }
    for words, (expected, said) in refused.items():
        code, _, err = command(*words)
        assert (code, err.count("\n")) == (expected, 1)
        assert said in err
