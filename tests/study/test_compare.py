"""The command: a study from its file to its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import ROOT, command
from studies import write_study

from jaxvalues.study import screen

QUICKSTART = ROOT / "configs/studies/quickstart.yaml"


@pytest.mark.exhaustive
def test_the_quickstart_from_its_file_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = ("compare", QUICKSTART, f"output={tmp_path / 'study'}", "repeated.seed=[0]")
    code, out, err = command(*words, "--plan")
    assert (code, err) == (0, "")
    assert "0 of 1" in out
    assert not (tmp_path / "study").exists()
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert "GPT-2 prompt, seed 0: official F1 held-out ." in out.replace(" 0.", " .")
    assert f"The report is {tmp_path / 'study/report.html'}" in out
    results = json.loads((tmp_path / "study/results.json").read_text(encoding="utf-8"))
    assert list(results["systems"]) == ["one head", "multiple heads", "contrastive", "T5 prompt", "GPT-2 prompt"]
    assert results["systems"]["GPT-2 prompt"]["trained_parameters"] == 8 * 128
    assert results["systems"]["one head"]["splits"]["test"]["official_f1"] > 0.3
    assert all(one["p_adjusted"] > 0 for one in results["contrasts"])
    assert (tmp_path / "study/figures/embeddings.svg").is_file()  # of the contrastive system
    page = (tmp_path / "study/report.html").read_bytes()
    code, out, _ = command("report", tmp_path / "study")
    assert code == 0
    assert (tmp_path / "study/report.html").read_bytes() == page
    code, out, _ = command(*words)  # nothing is left to run
    assert code == 0
    assert "begins" not in out


def test_a_study_that_cannot_be_built_is_refused_before_anything_runs(tmp_path: Path) -> None:
    systems = {"short": {}, "long": {"data.max_length": 500, "data.buckets": [500]}}
    file = write_study(tmp_path, scientific={"systems": systems})
    code, _, err = command("compare", file)
    assert code == 2
    assert err.startswith("jaxvalues: the study's system long: data.max_length is 500, but the model reads at most 64")
    assert not (tmp_path / "study").exists()


def test_the_plan_of_a_new_study_estimates_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_study(tmp_path)
    monkeypatch.setattr(screen, "operations_per_second", lambda dtype: 1e99)
    code, out, _ = command("compare", file, "--plan")
    assert code == 0
    assert out.count("~ 12 s") == 3  # three runs of each system, which take nothing but to begin
    monkeypatch.setattr(screen, "operations_per_second", lambda dtype: 1e6)
    assert "h " in command("compare", file, "--plan")[1].partition("~")[2].partition("~")[0]
    assert not (tmp_path / "study").exists()


def test_a_part_is_checked_first(tmp_path: Path) -> None:
    code, _, err = command("compare", write_study(tmp_path), "--part", "3/2")
    assert (code, err) == (2, "jaxvalues: --part is '3/2', expected I/N with I from 1 to N, such as 2/8\n")
