"""What `show` says and `train --dry-run` checks, beside what `train` then does."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from runs import ROOT, SMALL, command

from jaxvalues.config import load_config
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.task import TASKS
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.formulations import load_texts
from jaxvalues.models.loading import init_model, save_model
from jaxvalues.run.base import find_base, find_tokenizer
from jaxvalues.run.batches import training_batches
from jaxvalues.run.console import RunConsole
from jaxvalues.run.estimate import epoch_size
from jaxvalues.run.network import count
from jaxvalues.run.show import show
from jaxvalues.run.system import build_system
from jaxvalues.study.budget import size_of
from jaxvalues.training.sharding import single_mesh

ROBERTA = {"model_type": "roberta", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1}
ROBERTA |= {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 300}
QUICKSTARTS = ("quickstart", "quickstart-gpt2", "quickstart-t5")


def shown(path: Path, *overrides: str, width: int = 120) -> str:
    screen = Console(file=io.StringIO(), width=width)
    show(load_config(path, overrides), screen)
    return screen.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICKSTARTS)
def test_show_counts_what_train_trains(name: str) -> None:
    path = ROOT / f"configs/{name}.yaml"
    config = load_config(path)
    parts, texts = load_parts(config.data), load_texts(config.formulation, TASKS[config.data.task])
    base = find_base(config.model, config.seed)
    system = build_system(config, base, find_tokenizer(config, base, parts.full_training, texts), single_mesh())
    frozen, trainable = system.network.abstract_parts()
    batches = training_batches(system, parts.training, RunConsole(Console(quiet=True)))

    printed = shown(path)
    assert f"{count(trainable):,} parameters, method {config.tuning.method}" in printed
    assert f"{count(frozen):,} parameters" in printed
    assert epoch_size(config, parts) == batches.size
    each, epochs = batches.steps_per_epoch, config.training.epochs
    assert f"{epochs} epochs × {each:,} = {epochs * each:,}, each on {batches.size}" in printed
    assert re.search("time +not known before a run", printed)


def test_show_knows_the_memory_of_devices_that_are_not_here() -> None:
    one, eight = (shown(ROOT / "configs/bench/roberta-base.yaml", f"mesh.fsdp={n}", "mesh.data=1") for n in (1, 8))
    bytes_of = [
        re.search(r"memory +([\d,]+) MiB of weights, gradients and Adam's moments on (.*)", text)
        for text in (one, eight)
    ]
    assert [found[2].strip() for found in bytes_of] == ["the device", "each of 8 devices"]
    whole, part = (int(found[1].replace(",", "")) for found in bytes_of)
    assert whole == pytest.approx(124_070_420 * 16 / 2**20, abs=1)
    assert whole / 8 < part < 1.02 * whole / 8


@pytest.mark.slow
def test_show_compiles_for_devices_that_are_not_here(tmp_path: Path) -> None:
    """In a process of its own: the devices are simulated anew."""
    (tmp_path / "small.yaml").write_text(SMALL)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    arguments = ["show", tmp_path / "small.yaml", "mesh.data=1", "mesh.fsdp=4", "--compile"]
    arguments.append("model.config.intermediate_size=8192")
    command = [sys.executable, "-m", "jaxvalues", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "on each of 4 devices" in said
    found = re.search(r"([\d,]+) MiB of arguments and ([\d,]+) MiB of temporaries there, compiled for simulated", said)
    assert all(int(size.replace(",", "")) > 0 for size in found.groups())


def test_show_reads_no_weights_and_needs_no_data(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps(ROBERTA))
    (tmp_path / "a.yaml").write_text(f"model: {{path: {tmp_path / 'base'}}}\ndata: {{source: sample}}\n")
    assert "roberta, 1 layers, hidden_size 8" in shown(tmp_path / "a.yaml")


def test_what_is_only_asked_takes_no_steps() -> None:
    asked = (
        "formulation.kind=answer",
        "formulation.template=null",
        "formulation.synonyms=null",
        "tuning={method: none}",
    )
    printed = shown(ROOT / "configs/quickstart-gpt2.yaml", *asked)
    assert re.search("steps +none: nothing trains", printed)
    assert "230 training arguments are not used, 64 are held out to tune the decision" in printed
    assert "GFLOP to predict one row, besides what branches from it" in printed
    assert not re.search("learning rate|epoch|Adam|training step", printed)
    size = size_of(load_config(ROOT / "configs/quickstart-gpt2.yaml", asked))
    assert (size.trained, size.flops) == (0, 0)


def test_show_fetches_the_config_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        (tmp_path / "config.json").write_text(json.dumps(ROBERTA))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (tmp_path / "a.yaml").write_text("model: {path: someone/roberta}\ndata: {source: sample}\n")
    assert "; someone/roberta" in shown(tmp_path / "a.yaml")
    assert asked == [("someone/roberta", ["config.json"])]


def test_show_of_several_runs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SMALL)
    printed = shown(tmp_path / "a.yaml", "data.folds=3", "data.held_out=0.1", f"output={tmp_path / 'out'}")
    assert "3, and their combination; the first is a-seed0-fold0:" in printed


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("name", QUICKSTARTS)
def test_show_fits_the_screen(name: str, width: int) -> None:
    lines = shown(ROOT / f"configs/{name}.yaml", width=width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A config that starts from a checkpoint folder."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = {"model_type": "roberta", "vocab_size": 400, "max_position_embeddings": 66, "type_vocab_size": 1, **sizes}
    folder = tmp_path / "base"
    folder.mkdir()
    train_tokenizer(["a few words"], 400, 64).save_pretrained(folder)
    save_model(folder, config, init_model(config)[1])
    data = "{source: sample, held_out: validation, report: [test], max_length: 48, buckets: [48]}"
    (tmp_path / "small.yaml").write_text(f"data: {data}\nmodel: {{path: {folder}}}\noutput: {tmp_path / 'run'}\n")
    return tmp_path / "small.yaml"


@pytest.mark.slow
def test_a_dry_run_writes_nothing(small: Path) -> None:
    before = sorted(small.parent.rglob("*"))
    cache = f"runtime.compilation_cache={small.parent / 'xla'}"
    code, out, err = command("train", small, "--dry-run", cache)
    assert (code, err) == (0, "")
    assert f"{small.parent / 'run'}: a new run" in " ".join(out.split())
    assert "No problems found. Nothing was written" in " ".join(out.split())
    assert sorted(small.parent.rglob("*")) == before


@pytest.mark.slow
def test_a_dry_run_finds_what_is_wrong(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = small.parent / "base/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    code, _, err = command("train", small, "--dry-run")
    assert code == 1
    assert "model.safetensors" in err
    weights.write_bytes(whole)
    (small.parent / "file").write_text("")
    code, _, err = command("train", small, "--dry-run", f"output={small.parent / 'file/run'}")
    assert code == 1
    assert f"output: the run folder {small.parent / 'file/run'}: " in err
    code, _, err = command("train", small, "--dry-run", "data.report=[exam]")
    assert code == 2
    assert err.startswith("jaxvalues: data.report: there is no split `exam`, expected one of training, ")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    code, _, err = command("train", small, "--dry-run", "logging.wandb=mine")
    assert (code, err) == (2, "jaxvalues: logging.wandb needs the extra: pip install 'jaxvalues[wandb]'\n")
    assert not (small.parent / "run").exists()
