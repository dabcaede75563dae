"""Exports to transformers: the same logits in torch, everything that predicting takes, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import finished
import numpy as np
import pytest
import tiny
from finished import NETWORKS, config, equal, finish
from runs import command
from transformers import AutoConfig, AutoTokenizer

from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tsv import write_table
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.decision import read_decision
from jaxvalues.interop import to_hf
from jaxvalues.interop.from_hf import import_hf
from jaxvalues.interop.to_hf import export_hf
from jaxvalues.models import load_model, save_model, ungroup
from jaxvalues.run.prediction import likelihood_logits
from jaxvalues.run.system import Weights
from jaxvalues.templates.descriptions import HEADER

MULTIPLE = {"formulation": {"heads": "multiple"}}
WORDS = {"yes": ["good"], "no": ["bad"]}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 66, "vocab_size": 2000}
SECOND_OF_THREE = {"formulation": {"heads": "multiple", "pooling": {"over": "cls", "layers": [-2]}}}


@pytest.mark.slow
@pytest.mark.main_cases("roberta-*", "deberta-v2-*", "mpnet-*")
@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize(
    ("network", "change"),
    [("bert", {}), ("roberta", SECOND_OF_THREE), ("deberta", MULTIPLE), ("deberta-v2", {}), ("mpnet", MULTIPLE)],
)
def test_torch_gives_the_same_logits(network: str, change: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = finish(tmp_path / "run", config(network, change))
    system, params = run.restored()
    export_hf(run.path, tmp_path / "hf")
    tokens = system.formulation.encode(finished.split().arguments)
    assert len(set(tokens.lengths)) > 10  # rows are padded, each as it needs
    expected = likelihood_logits(system, Weights({}, params), tokens)
    assert expected.std() > 0.5
    logits = finished.torch_logits(tmp_path / "hf", finished.batch(system))
    np.testing.assert_allclose(logits, expected, atol=1e-5)

    # And training can start from its encoder.
    encoder, whole = ungroup(load_model(tmp_path / "hf")[1]), run.params["encoder"]
    assert list(encoder["layers"]) == ["0", "1"]
    equal(encoder, whole | {"layers": {i: whole["layers"][i] for i in "01"}})


def test_a_run_that_started_from_an_export_is_exported(tmp_path: Path) -> None:
    export_hf(finish(tmp_path / "first", config("roberta")).path, tmp_path / "hf")
    started = config("roberta", {"model": {"path": str(tmp_path / "hf"), "config": None}, "data": {"max_length": 48}})
    export_hf(finish(tmp_path / "second", started, seed=1).path, tmp_path / "again")
    ours = json.loads((tmp_path / "again/config.json").read_text())["jaxvalues"]
    assert ours["max_length"] == 48
    assert ours["threshold_logits"] == read_decision(tmp_path / "second").thresholds.tolist()


def test_everything_that_predicting_takes_is_there(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("bert", {"model": {"dropout": 0.25}, "formulation": {"head_dropout": 0.3}}))
    (tmp_path / "hf").mkdir()  # an empty folder is as good as none
    code, out, err = command("export", run.path, "--to", "hf", tmp_path / "hf")
    assert (code, err) == (0, "")
    assert f"wrote {tmp_path / 'hf'}" in " ".join(out.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "run"]
    for name in ("scores.json", "environment.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (run.path / name).read_bytes()

    written = json.loads((tmp_path / "hf/config.json").read_text())
    assert not {"_name_or_path", "torch_dtype"} & written.keys()
    known = AutoConfig.from_pretrained(tmp_path / "hf")
    assert tuple(known.id2label[i] for i in range(20)) == CATEGORIES
    assert known.label2id == {name: i for i, name in enumerate(CATEGORIES)}
    assert (known.num_labels, known.problem_type) == (20, "multi_label_classification")
    assert (known.hidden_dropout_prob, known.attention_probs_dropout_prob, known.classifier_dropout) == (
        0.25,
        0.25,
        0.3,
    )
    decision = read_decision(run.path)
    assert known.jaxvalues["threshold_logits"] == decision.thresholds.tolist()
    assert known.jaxvalues["decision"] == decision.how
    assert known.jaxvalues["max_length"] == 64
    assert known.jaxvalues["template"] == "{conclusion} {sep} {stance} {sep} {premise}"
    text = "Fünf Mark — [MASK] </s> ok"
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")(text).input_ids == tiny.tokenizer()(text).input_ids


def test_no_place_on_this_machine_is_told(tmp_path: Path) -> None:
    base, template, descriptions = (tmp_path / name for name in ("base", "mine.txt", "mine.tsv"))
    base.mkdir()
    save_model(base, NETWORKS["deberta-v2"], finish(tmp_path / "any", config("deberta-v2")).params["encoder"])
    tiny.tokenizer().save_pretrained(base)
    template.write_text("{premise} {sep} {{mine}}")
    write_table(descriptions, HEADER, [(name, f"about {name}") for name in CATEGORIES])
    places = {
        "data": {"dir": str(tmp_path / "data")},
        "model": {"path": str(base), "config": None, "tokenizer": str(base)},
        "formulation": {"template": str(template), "descriptions": str(descriptions)},
        "runtime": {"compilation_cache": str(tmp_path / "cache")},
    }
    run = finish(tmp_path / "run", config("deberta-v2", places, {"data": {"max_length": 400}}))
    export_hf(run.path, tmp_path / "hf")
    texts = {file.name: file.read_text() for file in (tmp_path / "hf").iterdir() if file.suffix != ".safetensors"}
    assert {"README.md", "config.json", "tokenizer_config.json"} <= texts.keys()
    assert not [name for name, text in texts.items() if str(tmp_path) in text or "/somewhere" in text]
    ours = json.loads(texts["config.json"])["jaxvalues"]
    assert ours["template"].startswith("{premise} {sep} {{mine}} {sep} about Self-direction: thought; about ")
    assert ours["config"]["formulation"]["descriptions"] == "mine.tsv"


def test_a_name_on_the_hub_is_told(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("roberta"))
    text = (run.path / "config.yaml").read_text()
    start, end = text.index("  path: null"), text.index("  tokenizer: ")
    (run.path / "config.yaml").write_text(text[:start] + "  path: someone/roberta-tiny\n  config: null\n" + text[end:])
    (run.path / "manifest.json").unlink()  # which would find the change
    export_hf(run.path, tmp_path / "hf")
    assert json.loads((tmp_path / "hf/config.json").read_text())["jaxvalues"]["config"]["model"]["path"] == (
        "someone/roberta-tiny"
    )
    assert "base_model: someone/roberta-tiny\n" in (tmp_path / "hf/README.md").read_text()


@pytest.fixture
def half_frozen(tmp_path: Path) -> tuple[finished.Finished, Path, dict[str, Any]]:
    """A run of which only the top layer trained, the base it started from, and that base's parameters."""
    base = tmp_path / "base"
    below = finish(tmp_path / "any", config("roberta"), seed=1).params["encoder"]
    base.mkdir()
    save_model(base, NETWORKS["roberta"], below)
    last = {"model": {"path": str(base), "config": None}, "tuning": {"method": "last_layers", "layers": 1}}
    return finish(tmp_path / "run", config("roberta", last)), base, below


@pytest.mark.slow
def test_what_did_not_train_comes_from_the_base_model(half_frozen: Any, tmp_path: Path) -> None:
    run, base, below = half_frozen
    export_hf(run.path, tmp_path / "hf")
    written = ungroup(load_model(tmp_path / "hf")[1])
    equal(written["layers"].pop("2"), run.params["encoder"]["layers"]["2"])
    equal(written["layers"], {i: below["layers"][i] for i in "01"})
    equal(written["embeddings"], below["embeddings"])

    base = base.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"the checkpoint folder .*base does not exist"):
        export_hf(run.path, tmp_path / "second")
    assert not (tmp_path / "second").exists()
    export_hf(run.path, tmp_path / "second", overrides=(f"model.path={base}",))
    assert (tmp_path / "second/model.safetensors").read_bytes() == (tmp_path / "hf/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "second")
    save_model(base, NETWORKS["roberta"], run.params["encoder"])
    with pytest.raises(UserError, match=f"{base} holds other weights than"):
        export_hf(run.path, tmp_path / "second", overrides=(f"model.path={base}",))


@pytest.mark.parametrize(
    ("pooling", "cause"),
    [
        ({"over": "mean"}, "over is mean"),
        ({"over": "cls", "layers": [-1, -2]}, "layers is [-1, -2], several"),
        ({"over": "cls", "layers": [0]}, "layers is [0], the embeddings"),
        ({"over": "cls", "layers": [-3]}, "layers is [-3], the embeddings"),
    ],
)
def test_what_transformers_cannot_express_is_refused(pooling: dict[str, Any], cause: str, tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("bert", {"formulation": {"pooling": pooling}}))
    code, _, err = command("export", run.path, "--to", "hf", tmp_path / "new/hf")
    assert code == 2
    assert err.startswith(f"jaxvalues: formulation.pooling.{cause}, but transformers' classifiers read the first token")
    assert "formulation.pooling.over=cls and a single layer can be exported to hf" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tuning": {"method": "prefix", "length": 2}},
            r"tuning\.method prefix adds vectors .* only a run that trained weights can",
        ),
        (
            {"formulation": {"kind": "masked_choice", "template": "masked_choice", "pooling": {}, "verbalizer": WORDS}}
            | {"tuning": {"method": "lora"}, "data": {"max_length": 60, "buckets": [60]}},
            r"kind masked_choice has no classifier, .*: tuning\.method lora can be exported with --to peft",
        ),
        (
            {"model": {"config": GPT2}, "formulation": {"pooling": {"over": "last"}}},
            r"formulation\.kind classify on a gpt2 model pools differently .* so it cannot be exported to hf",
        ),
    ],
)
def test_what_is_no_classifier_of_transformers_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("bert", change))
    with pytest.raises(ConfigError, match=message):
        export_hf(run.path, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.slow
@pytest.mark.main_cases("lora")
@pytest.mark.parametrize("method", ["lora", "ia3", "bitfit"])
def test_what_was_added_is_merged(method: str, tmp_path: Path) -> None:
    """The weights that are written are those that predict, and an import has them."""
    run = finish(tmp_path / "run", config("roberta", {"tuning": {"method": method}}))
    _, params = run.restored()
    export_hf(run.path, tmp_path / "hf")
    equal(ungroup(load_model(tmp_path / "hf")[1]), params["encoder"])
    import_hf(tmp_path / "hf", tmp_path / "back")
    _, again = finished.Finished(tmp_path / "back", None).restored()
    equal(again, params)


def test_wrong_usage(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", config("bert"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("mine")
    with pytest.raises(ConfigError, match="full is not empty: give another folder"):
        export_hf(run.path, tmp_path / "full")
    with pytest.raises(ConfigError, match="precious is a file: give a folder"):
        export_hf(run.path, tmp_path / "full/precious")
    with pytest.raises(UserError, match=r"the folder .*precious/hf cannot be created"):
        export_hf(run.path, tmp_path / "full/precious/hf")
    with pytest.raises(ConfigError, match=r"formulation\.heads cannot be changed for a run that is trained"):
        export_hf(run.path, tmp_path / "hf", overrides=("formulation.heads=multiple",))
    with pytest.raises(UserError, match="holds no finished run"):
        export_hf(tmp_path / "full", tmp_path / "hf")
    assert command("export", run.path, "--to", "onnx", tmp_path / "hf")[0] == 2
    assert command("export", run.path, tmp_path / "hf")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "run"]
    assert (tmp_path / "full/precious").read_text() == "mine"


@pytest.mark.parametrize(("error", "said"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, UserError)])
def test_an_interrupted_export_leaves_nothing(
    error: type[BaseException], said: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish(tmp_path / "run", config("bert"))

    def interrupted(folder: Path) -> str:
        assert (folder / "model.safetensors").exists()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(to_hf, "model_card", interrupted)
        with pytest.raises(said):
            export_hf(run.path, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    export_hf(run.path, tmp_path / "hf")
    assert (tmp_path / "hf/README.md").exists()
