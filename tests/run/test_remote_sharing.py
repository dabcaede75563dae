"""Several runs at one endpoint: what one asked, another need not; examples follow the seed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from remote_runs import QUESTIONS, config, tree
from rich.console import Console
from stand_in import StandIn

from jaxvalues.ensemble import train
from jaxvalues.remote import pace
from jaxvalues.remote.store import read_store
from jaxvalues.run.predict import predict
from jaxvalues.run.remote import load_inputs
from jaxvalues.study.files import load_study
from jaxvalues.study.plan import make_plan
from jaxvalues.study.run import Share, run_study

TOTAL = sum(QUESTIONS.values())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, without_key: None) -> None:
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.01)


def test_seeds_of_an_ensemble_ask_once(server: StandIn, tmp_path: Path) -> None:
    one = config(tmp_path, server.url, ensemble={"seeds": [0, 1]})
    train(one, Console(file=io.StringIO()))
    assert server.total == TOTAL + 1
    assert len(read_store(tmp_path / "run/answers.jsonl").answers) == TOTAL
    (run, _) = sorted((tmp_path / "run").glob("*/scores.json"))
    predict(run.parent, split="test", out=tmp_path / "again", console=Console(file=io.StringIO()))
    assert server.total == TOTAL + 1


@pytest.mark.parametrize("parts", [1, 2])
def test_runs_of_a_study_ask_once(parts: int, server: StandIn, tmp_path: Path) -> None:
    """Machines that each take a part have a store each, since they cannot write into one."""
    base = tree(tmp_path, server.url)
    del base["output"]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    study = {
        "question": "Which?", "base": "base.yaml", "output": str(tmp_path / "study"), "report": ["test"],
        "scientific": {"systems": {"names": {}, "raw": {"decision.threshold": "fixed"}}}, "repeated": {"seed": [0, 1]},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    plan = make_plan(load_study(tmp_path / "study.yaml"))
    for number in range(1, parts + 1):
        assert run_study(plan, Share(number, parts), Console(file=io.StringIO()))
    assert server.total == parts * (TOTAL + 1)
    stores = [path.name for path in sorted(tmp_path.rglob("*.jsonl")) if path.name.startswith("answers")]
    assert stores == (["answers.jsonl"] if parts == 1 else ["answers-1of2.jsonl", "answers-2of2.jsonl"])


def test_a_store_in_the_run_folder_goes_on(server: StandIn, tmp_path: Path) -> None:
    one = config(tmp_path, server.url, ensemble={"seeds": [0]})
    train(one, Console(file=io.StringIO()))
    (run,) = (tmp_path / "run").glob("*/scores.json")
    (tmp_path / "run/answers.jsonl").rename(run.parent / "answers.jsonl")
    run.unlink()
    train(one, Console(file=io.StringIO()))
    assert server.total == TOTAL + 1


def test_examples_follow_the_seed_of_the_run(tmp_path: Path) -> None:
    form = {"kind": "answer", "examples": {"count": 1, "choose": "seed"}}
    made = [load_inputs(config(tmp_path, "http://x/v1", formulation=form, seed=seed)).examples for seed in (0, 0, 5)]
    assert [one.seed for one in made] == [0, 0, 5]
    ids = [one.pool.ids for one in made]
    assert ids[0] == ids[1] != ids[2]
