"""Studies that train: those of prompt variance with a tiny network, and runs that share what frozen layers give."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from rich.console import Console
from runs import ROOT
from studies import BASE, planned

from jaxvalues.data.held_out import HELD_OUT
from jaxvalues.evaluation.predictions import read_logits
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.predict import predict, restore
from jaxvalues.run.train import train
from jaxvalues.study.combined import combined_runs
from jaxvalues.study.combining import result_folder
from jaxvalues.study.compare import compare
from jaxvalues.study.files import load_study
from jaxvalues.study.plan import FEATURES, Plan, make_plan
from jaxvalues.study.results import StudyResults
from jaxvalues.study.run import Share, run_study
from jaxvalues.training.sharding import single_mesh

CLAIM = "configs/studies/templates/claim.txt"
FEW = {
    "prompt-variance": (
        f"repeated={{seed: [0], init_seed: [0, 1], formulation.template: [joined, {CLAIM}]}}",
    ),
    "prompt-variance-remedies": (
        "repeated.seed=[0]",
        "training.evaluate_every=4",
        *(f"scientific.combined.{name} 4 {what}.members=2" for name, what in (
            ("mean of", "inits"), ("mean weights of", "orders"), ("best of", "inits")
        )),
    ),
}  # fmt: skip


def run_tiny(name: str, folder: Path) -> tuple[Plan, StudyResults]:
    """A shipped study with a tiny network, few runs and the embedded sample."""
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
    shipped = yaml.safe_load((ROOT / f"configs/studies/{name}.yaml").read_text(encoding="utf-8"))
    changed = {**shipped, "base": "base.yaml", "report": ["test"], "output": str(folder / "study")}
    (folder / "study.yaml").write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    study = load_study(folder / "study.yaml", ("tuning.length=4", "training.batch_size=32", *FEW[name]))
    out = Console(file=io.StringIO(), width=200)
    finished, results = compare(study, out)
    assert finished, out.file.getvalue()
    assert results.missing == ()
    return make_plan(study), results


@pytest.mark.exhaustive
@pytest.mark.usefixtures("quick_compiles")
def test_remedies_of_prompt_variance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan, results = run_tiny("prompt-variance-remedies", tmp_path)
    assert [len(system.runs) for system in results.systems.values()] == [1] * 8
    assert all(np.isfinite(one.p) for one in results.contrasts)

    # The mean of the weights, which the folder of the combination predicts with, as any other run.
    soup = combined_runs(plan, "mean weights of 4 orders", {})[0]
    trees = []
    for path in (soup.folder, *(one.config.folder for one in soup.members)):
        folder = RunFolder(path)
        trees.append(jax.device_get(restore(folder, folder.config(), single_mesh())[1]))
    for found, *each in zip(*(jax.tree.leaves(tree.trainable) for tree in trees), strict=True):
        np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5, atol=1e-7)
        assert np.any(each[0] != each[1])
    for frozen in zip(*(jax.tree.leaves(tree.frozen) for tree in trees), strict=True):
        np.testing.assert_array_equal(frozen[0], frozen[2])  # one initial value, whatever the order of the data
    predict(soup.folder, split="test", out=tmp_path / "again", console=Console(quiet=True))
    again, written = (read_logits(path / "logits-test.tsv").values for path in (tmp_path / "again", soup.folder))
    np.testing.assert_allclose(again, written, atol=1e-5)
    assert RunFolder(soup.folder).environment()["mean_of"][1].startswith("../../1-epoch/seed-100000_init_seed-0_")

    best = combined_runs(plan, "best of 4 inits", {})[0]
    assert result_folder(best).resolve() in [each.config.folder.resolve() for each in best.members]
    assert len(list((tmp_path / "study/runs/2-epochs").glob("seed-0_init_seed-100000_*/checkpoints/resume/*"))) > 0


@pytest.mark.exhaustive
@pytest.mark.usefixtures("quick_compiles")
def test_where_prompt_variance_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, results = run_tiny("prompt-variance", tmp_path)
    assert [len(system.runs) for system in results.systems.values()] == [4, 4, 2, 2]
    variance = results.systems["random words"].variance["test"]
    assert list(variance.levels) == ["init_seed", "template", "conclusion"]
    of_inits = next(one for one in results.contrasts if one.a == "mean of 8 inits")
    assert list(of_inits.differences) == [
        "seed 0, template joined",
        "seed 0, template configs/studies/templates/claim.txt",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiles")
def test_runs_that_share_features_compute_them_once(tmp_path: Path) -> None:
    one_head = {"tuning": {"method": "head", "dropout_below": False}}
    systems = {"one": one_head, "many": {**one_head, "formulation.heads": "multiple"}}
    plan = planned(
        tmp_path, "training.epochs=1", scientific={"systems": systems}, repeated={"seed": [0]},
        changes={"init_seed": 3}, keep_features=True,
    )  # fmt: skip
    out = io.StringIO()
    assert run_study(plan, Share(), Console(file=out, width=200))
    kept = sorted((tmp_path / "study" / FEATURES).iterdir())
    assert len(kept) == 3  # arguments to train on, held-out ones and those of the test split
    assert all(file.stat().st_mtime < min_time(plan, "many") for file in kept)

    alone = plan.runs("many", {})[0].config
    runtime = alone.runtime.model_copy(update={"features": None})
    train(alone.model_copy(update={"output": str(tmp_path / "alone"), "runtime": runtime}), Console(quiet=True))
    for part in (HELD_OUT, "test"):
        there, here = (path / f"logits-{part}.tsv" for path in (alone.folder, tmp_path / "alone"))
        assert there.read_bytes() == here.read_bytes()

    again = planned(
        tmp_path, "training.epochs=1", scientific={"systems": systems}, repeated={"seed": [0]}, changes={"init_seed": 3}
    )
    assert run_study(again, Share(), Console(file=out, width=200))
    assert not (tmp_path / "study" / FEATURES).exists()
    assert "what frozen networks gave and runs shared (" in out.getvalue()


def min_time(plan: Plan, system: str) -> float:
    """When the first run of a system began."""
    return min((one.config.folder / "config.yaml").stat().st_mtime for one in plan.runs(system, {}))
