"""Detectors: the same predictions as the run's, found by name, and no other network in the place of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import tiny
import yaml
from finished import NETWORKS, config, drawn, finish
from runs import command
from safetensors.numpy import load_file, save_file

from jaxvalues.data.loading import load_split
from jaxvalues.evaluation.predictions import read_logits
from jaxvalues.interop.to_detector import export_detector
from jaxvalues.models import abstract_model, load_model, save_model
from jaxvalues.run import shipped
from jaxvalues.run.predict import predict

NAME = "someone/tiny"
METHODS: dict[str, dict[str, Any]] = {"bitfit": {}, "lora": {"rank": 2}, "prompt": {"length": 3}}


class Made(NamedTuple):
    """A base network, a run that started from it, and the detector of that run, called `tiny-values`."""

    base: Path
    run: Path
    folder: Path


def make(folder: Path, network: str, method: str, **model: Any) -> Made:
    """A finished run on a base network of random weights, which predicted the sample's test split, as a detector."""
    base = folder / "base"
    save_model(base, NETWORKS[network], drawn(abstract_model(NETWORKS[network], scan=False)[1], seed=3))
    tiny.tokenizer().save_pretrained(base)
    started = {"model": {"path": str(base), "config": None, "tokenizer": None, **model}}
    sections = {"data": {"max_length": 48, "buckets": [48]}, "tuning": {"method": method, **METHODS[method]}}
    run = finish(folder / "run", config(network, started, sections)).path
    predict(run, split="test")
    export_detector(run, folder / "tiny-values", base=NAME)
    return Made(base, run, folder / "tiny-values")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, quick_compiles: None) -> Made:
    return make(tmp_path_factory.mktemp("bitfit"), "bert", "bitfit")


@pytest.fixture
def in_the_box(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The detector is the one that comes with the package; the current folder is `tmp_path`."""
    monkeypatch.setattr(shipped, "DETECTORS", made.folder.parent)
    monkeypatch.chdir(tmp_path)


def fails(code: int, *words: object) -> str:
    """The one sentence with which a command fails with this code."""
    found, _, err = command(*words)
    assert found == code, err
    assert err.startswith("jaxvalues: ")
    assert err.count("\n") == 1
    assert len(err) < 300 + len("jaxvalues: \n")
    return err


@pytest.mark.usefixtures("in_the_box")
def test_a_name_predicts_a_users_file_and_a_split_as_the_run_did(made: Made, tmp_path: Path) -> None:
    arguments = load_split("test", source="sample").arguments[:5]
    rows = "\n".join(f'{a.id},"{a.conclusion}",{a.stance},"{a.premise}"' for a in arguments)
    (tmp_path / "mine.csv").write_text(f"Argument ID,Conclusion,Stance,Premise\n{rows}\n")
    where = f"model.path={made.base}"
    code, out, err = command("predict", "--model", "tiny-values", where, "--input", "mine.csv")
    assert code == 0, err
    assert arguments[0].premise.split()[0] in out
    found = read_logits(tmp_path / "tiny-values-predictions/logits-mine.tsv")
    of_run = read_logits(made.run / "logits-test.tsv")
    np.testing.assert_allclose(found.values, of_run.values[:5], atol=1e-5)

    code, out, err = command("predict", "--model", "tiny-values", "--split", "test", "--out", "out", where)
    assert code == 0, err
    assert "official F1" in out
    for kind in ("logits", "predictions"):
        name = f"{kind}-test.tsv"
        assert (tmp_path / "out" / name).read_bytes() == (made.run / name).read_bytes()
    assert not list(made.folder.glob("*-test.tsv"))  # a package is not written to


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize(("network", "method", "model"), [("mpnet", "lora", {"scan": True}), ("roberta", "prompt", {})])
def test_methods_that_add_and_layers_that_are_stacked(
    network: str, method: str, model: dict[str, Any], tmp_path: Path
) -> None:
    made = make(tmp_path, network, method, **model)
    where = (f"model.path={made.base}", "model.scan=false")
    predict(made.folder, split="test", out=tmp_path / "out", overrides=where)
    ours, of_run = (read_logits(folder / "logits-test.tsv").values for folder in (tmp_path / "out", made.run))
    assert of_run.std() > 0.3
    np.testing.assert_allclose(ours, of_run, atol=1e-5)


def test_what_a_detector_holds(made: Made) -> None:
    tensors = load_file(made.folder / "adapter.safetensors")
    trained = sum(array.size for array in tensors.values())
    biases = NETWORKS["bert"]["num_hidden_layers"] * (4 * 64 + 128 + 64 + 2 * 64) + 64
    assert trained == biases + 64 * 20 + 20
    assert all(name.endswith("/bias") or name.startswith("head/") for name in tensors)
    about = json.loads((made.folder / "detector.json").read_text())
    assert (about["base"], about["trained"]) == (NAME, trained)
    conclusions = {argument.conclusion for argument in load_split("test", source="sample").arguments}
    assert about["intervals"]["test"]["conclusions"] == len(conclusions)
    settings = yaml.safe_load((made.folder / "config.yaml").read_text())
    assert (settings["name"], settings["model"]["path"], settings["data"]["dir"]) == ("tiny-values", NAME, None)

    texts = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    assert sum(map(len, texts.values())) < 100_000
    forbidden = [str(made.base).encode(), str(made.run).encode(), b"/somewhere/bert"]
    for split in ("training", "validation", "test"):
        forbidden += [a.premise.encode() for a in load_split(split, source="sample").arguments]
    assert not [path for path, content in texts.items() for one in forbidden if one in content]


def test_the_card_says_what_it_is(made: Made) -> None:
    card = (made.folder / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert (metadata["base_model"], metadata["library_name"]) == (NAME, "jaxvalues")
    about = json.loads((made.folder / "detector.json").read_text())
    low, high = about["intervals"]["test"]["interval"]
    assert f"| {low:.3f} to {high:.3f} |" in card
    assert "\n| split | official F1 | 95 % interval |" in card
    for part in ("jaxvalues predict --model tiny-values --input", about["tensors"], "## Limits", "## Licence"):
        assert part in card
    assert "$" not in card


@pytest.mark.usefixtures("in_the_box")
def test_another_network_is_refused(made: Made, tmp_path: Path) -> None:
    predicted = ("predict", "--model", "tiny-values", "--split", "test")
    assert "could not be fetched from the Hugging Face hub" in fails(1, *predicted)

    _, params = load_model(made.base, scan=False)
    params["layers"]["1"]["mlp"]["up"]["kernel"] += 1e-6
    save_model(tmp_path / "other", NETWORKS["bert"], params)
    fails(1, *predicted, f"model.path={tmp_path / 'other'}")  # no tokenizer
    tiny.tokenizer().save_pretrained(tmp_path / "other")
    err = fails(1, *predicted, f"model.path={tmp_path / 'other'}")
    assert f"other holds other tensors than {NAME}, on which the detector tiny-values was trained" in err

    files = {path.name: path for path in (made.base.iterdir())}
    copied = tmp_path / "copied"
    copied.mkdir()
    for name, path in files.items():
        (copied / name).write_bytes(path.read_bytes())
    tensors = load_file(made.base / "model.safetensors")
    renamed = {f"bert.{name}": array for name, array in tensors.items()} | {"cls.more": np.zeros(3, np.float32)}
    save_file(renamed, copied / "model.safetensors")  # as another library writes the same network
    assert command(*predicted, f"model.path={copied}", "--out", "out")[0] == 0


@pytest.mark.usefixtures("in_the_box")
def test_what_cannot_be_predicted_with_is_said(made: Made, tmp_path: Path) -> None:
    err = fails(2, "predict", "--model", "tiny", "--split", "test")
    assert "--model: no detector of this package is called 'tiny', it has only tiny-values; give the folder" in err
    assert "give RUN, the folder of a finished run, or --model NAME" in fails(2, "predict", "--split", "test")
    assert "model.path=x" not in fails(2, "predict", "--model", "tiny-values", made.run, "--split", "test")
    err = fails(2, "predict", "--model", "tiny-values", "seed=3", "--split", "test")
    assert "seed cannot be changed for a run that is trained" in err
    err = fails(1, "export", made.folder, "--to", "hf", tmp_path / "hf")
    assert "tiny-values holds a detector, which can only predict, expected a finished run" in err

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model").mkdir()
    for path in made.folder.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            (broken / path.relative_to(made.folder)).write_bytes(path.read_bytes())
    tensors = load_file(made.folder / "adapter.safetensors")
    save_file({name: array for name, array in tensors.items() if name != "head/bias"}, broken / "adapter.safetensors")
    err = fails(1, "predict", broken, f"model.path={made.base}", "--split", "test", "--out", tmp_path / "out")
    assert "adapter.safetensors: does not fit config.yaml, tensors that differ: head/bias" in err
    (broken / "detector.json").write_text('{"base": 3}')
    assert "detector.json: `base` is 3" in fails(1, "predict", broken, "--split", "test")


def test_what_makes_no_detector_is_said(made: Made, tmp_path: Path) -> None:
    def refused(run: Path, *words: object, code: int = 2) -> str:
        err = fails(code, "export", run, "--to", "detector", tmp_path / "new", *words)
        assert not (tmp_path / "new").exists()
        return err

    assert f"model.path of the run is the folder {made.base}: give --base, the name of" in refused(made.run)
    assert "--base 'a b' is no name of a network on the Hugging Face hub" in refused(made.run, "--base", "a b")
    err = fails(2, "export", made.run, "--to", "hf", tmp_path / "new", "--base", NAME)
    assert "--base belongs to --to detector" in err
    random = finish(tmp_path / "random", config("bert")).path
    assert "model.config: the network began with random weights" in refused(random, "--base", NAME)
    large = {"vocab_size": 2000, **NETWORKS["bert"], "hidden_size": 128, "intermediate_size": 256}
    save_model(tmp_path / "base", large, drawn(jax.eval_shape(lambda: abstract_model(large, scan=False)[1])))
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    model = {"model": {"path": str(tmp_path / "base"), "config": None, "tokenizer": None}}
    full = finish(tmp_path / "full", config("bert", model)).path
    err = refused(full, "--base", NAME)
    assert "tuning.method full trained" in err
    assert "but a detector is at most 500 kB: use a method that trains less (bitfit," in err
