"""Imports: an exported run comes back bit for bit, and a folder that is none is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import finished
import jax
import numpy as np
import pytest
from finished import NETWORKS, Finished, config, drawn, equal, finish
from runs import command
from safetensors.numpy import load_file, save_file

from jaxvalues.config import Config
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import write_table
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.interop.from_hf import import_hf
from jaxvalues.interop.to_hf import export_hf
from jaxvalues.models import abstract_model, save_model
from jaxvalues.run.folder import RunFolder
from jaxvalues.templates.descriptions import HEADER

PLACES = ("logging", "runtime")  # sections that an export leaves out


def without_places(hf_config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in hf_config.items() if key not in ("_name_or_path", "torch_dtype")}


def round_trip(run: Finished) -> Finished:
    """The run after an export and an import."""
    folder = run.path.parent
    export_hf(run.path, folder / "hf")
    import_hf(folder / "hf", folder / "back")
    return Finished(folder / "back", run.params)


def same(before: Finished, after: Finished) -> Any:
    """Everything that predicts is the same, and what is known about it; the parameters."""
    for name in ("scores.json", "thresholds.json", "template.txt"):
        assert (after.path / name).read_bytes() == (before.path / name).read_bytes()
    (old, expected), (new, params) = before.restored(), after.restored()
    rows = (system.formulation.encode(finished.split().arguments).ids for system in (old, new))
    assert all(np.array_equal(a, b) for a, b in zip(*rows, strict=True))
    equal(params, expected)
    return params


@pytest.mark.main_cases("bert-*", "deberta-v2-*")
@pytest.mark.parametrize(
    ("network", "change"),
    [
        ("bert", {"formulation": {"heads": "multiple"}, "tuning": {"method": "full"}}),
        ("roberta", {"model": {"scan": True}}),
        ("deberta", {}),
        ("deberta-v2", {"formulation": {"heads": "multiple", "template": "cls", "descriptions": "values"}}),
    ],
)
def test_a_run_comes_back(network: str, change: dict[str, Any], tmp_path: Path) -> None:
    long = {"data": {"max_length": 400}} if network == "deberta-v2" else {}  # so that descriptions fit
    run = finish(tmp_path / "run", config(network, change, long))
    back = round_trip(run)
    same(run, back)
    before, after = (RunFolder(one.path).config().model_dump() for one in (run, back))
    assert after.pop("output") == str(back.path)
    before["model"] |= {"tokenizer": str(tmp_path / "hf"), "config": without_places(before["model"]["config"])}
    before["logging"], before["runtime"] = (Config.model_fields[name].default.model_dump() for name in PLACES)
    assert after == {name: section for name, section in before.items() if name != "output"}
    environments = [json.loads((one.path / "environment.json").read_text()) for one in (run, back)]
    assert environments[0] == environments[1]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A RoBERTa of three layers."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_model(folder, NETWORKS["roberta"], drawn(abstract_model(NETWORKS["roberta"])[1]))
    return folder


def last_layers(base: Path, count: int) -> dict[str, Any]:
    """The changes to a config by which only so many layers of a base model train."""
    return {"model": {"path": str(base), "config": None}, "tuning": {"method": "last_layers", "layers": count}}


@pytest.mark.slow
def test_frozen_weights_come_from_the_export_then(base: Path, tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("roberta", last_layers(base, 1)))
    back = round_trip(run)
    params = same(run, back)
    assert RunFolder(back.path).config().model.path == str(tmp_path / "hf")
    shutil.rmtree(base)
    equal(back.restored()[1], params)
    other = shutil.copytree(tmp_path / "hf", tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file(tensors | {"classifier.dense.bias": np.ones(64, np.float32)}, other / "model.safetensors")
    with pytest.raises(UserError, match=r"other holds other weights than .*back was trained on"):
        export_hf(back.path, tmp_path / "second", overrides=(f"model.path={other}",))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiles")
def test_random_frozen_weights_are_kept_too(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("bert", {"tuning": {"method": "head"}}))
    back = round_trip(run)
    same(run, back)
    model = RunFolder(back.path).config().model
    assert (model.path, model.config) == (str(tmp_path / "hf"), None)  # not drawn again


@pytest.mark.slow
def test_layers_above_the_pooled_one_stay_away(base: Path, tmp_path: Path) -> None:
    second = {"formulation": {"pooling": {"over": "cls", "layers": [2]}}}
    run = finish(tmp_path / "run", config("roberta", last_layers(base, 2), second))
    back = round_trip(run)
    (_, expected), (system, params) = run.restored(), back.restored()
    assert (system.network.num_layers, system.config.tuning.layers) == (2, 1)
    assert system.config.formulation.pooling.layers == (-1,)
    del expected["encoder"]["layers"]["2"]
    equal(params, expected)


@pytest.mark.slow
def test_texts_of_ones_own_come_along(tmp_path: Path) -> None:
    template, descriptions = tmp_path / "mine.txt", tmp_path / "mine.tsv"
    template.write_text("{premise} {sep} {sep} so: {conclusion} {{yes}}")
    write_table(descriptions, HEADER, [(name, f"{{{name}}}") for name in CATEGORIES])
    own = {"formulation": {"template": str(template), "descriptions": str(descriptions)}}
    run = finish(tmp_path / "run", config("deberta", own, {"data": {"max_length": 400}}))
    back = round_trip(run)
    template.unlink()
    descriptions.unlink()
    same(run, back)


@pytest.mark.slow
def test_what_only_contrastive_learning_uses_is_left_out(tmp_path: Path) -> None:
    projected = {"loss": {"contrastive": {"embedding": "projected", "projection_size": 64}}}
    run = finish(tmp_path / "run", config("roberta", projected))
    back = round_trip(run)
    (_, expected), (_, params) = run.restored(), back.restored()
    del expected["projection"]
    projection = params.pop("projection")
    equal(params, expected)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(projection))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export_hf(finish(tmp_path / "run", config("bert")).path, tmp_path / "hf")
    return tmp_path / "hf"


def rewrite(folder: Path, change: Any) -> None:
    """Change a folder's config.json in place."""
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


NOT_OURS = "has no valid `jaxvalues` entry (template, thresholds, config), so this is not a folder of"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content.pop("jaxvalues"), NOT_OURS),
        (lambda content: content["jaxvalues"].pop("template"), NOT_OURS),
        (lambda content: content["jaxvalues"].pop("decision"), NOT_OURS),
        (lambda content: content["jaxvalues"].update(config=[]), NOT_OURS),
        (lambda content: content["jaxvalues"]["threshold_logits"].pop(), NOT_OURS),
        (lambda content: content["jaxvalues"].update(threshold_logits=[None] * 20), NOT_OURS),
        (lambda content: content["jaxvalues"].update(threshold_logits=["high"] * 20), NOT_OURS),
        (lambda content: content["id2label"].update({"0": "Stimulation"}), NOT_OURS),
        (lambda content: content["jaxvalues"]["config"].update(sead=1), "jaxvalues: unknown key `sead`; did you mean"),
        (lambda content: content["jaxvalues"]["config"]["formulation"].update(heads="two"), "`formulation.heads`"),
        (lambda content: content.update(model_type="bart"), "model_type 'bart' is not supported"),
        (
            lambda content: content.update(num_hidden_layers=3),
            "tensors missing: bert.encoder.layer.2.",
        ),
    ],
)
def test_a_folder_that_is_no_run_is_refused(change: Any, sentence: str, exported: Path, tmp_path: Path) -> None:
    rewrite(exported, change)
    code, _, err = command("import", exported, "--out", tmp_path / "back")
    assert code in (1, 2)
    assert err.startswith("jaxvalues: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "run"]


def test_missing_files(exported: Path, tmp_path: Path) -> None:
    for name, sentence in {
        "tokenizer.json": "the tokenizer could not be loaded",
        "model.safetensors": "holds neither model.safetensors nor",
        "scores.json": "hf/scores.json: no such file, expected what `jaxvalues export` copies of every run",
        "environment.json": "hf/environment.json: no such file, expected what",
        "config.json": "hf holds no config.json",
    }.items():
        (exported / name).unlink()
        with pytest.raises(UserError, match=sentence):
            import_hf(exported, tmp_path / "back")
    (exported / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config.json: is not valid JSON"):
        import_hf(exported, tmp_path / "back")
    with pytest.raises(ConfigError, match="is not empty"):
        import_hf(exported, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "run"]


def test_a_model_trained_further_elsewhere_is_no_run(exported: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = finished.torch_classifier(exported)
    with torch.no_grad():
        model.bert.pooler.dense.weight += 1e-5
    model.save_pretrained(exported)
    with pytest.raises(UserError, match=r"bert\.pooler\.dense is not as jaxvalues wrote it, so this model was trained"):
        import_hf(exported, tmp_path / "back")


@pytest.mark.slow
def test_a_folder_that_transformers_wrote_again_comes_back(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    before = load_file(exported / "model.safetensors")
    finished.torch_classifier(exported).save_pretrained(exported)
    import_hf(exported, tmp_path / "back")
    export_hf(tmp_path / "back", tmp_path / "again")
    equal(load_file(tmp_path / "again/model.safetensors"), before)
