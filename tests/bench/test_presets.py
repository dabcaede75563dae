"""The presets of the bench: what they count, how two measurements are set side by side, and the chart."""

from __future__ import annotations

import copy
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runs import command

from jaxvalues.bench import compiling
from jaxvalues.bench.comparison import compare_results, figures, read_result
from jaxvalues.bench.compile_task import EAGER, JAX, TORCH, Events, steady
from jaxvalues.bench.compiling import NETWORKS, break_even, config_of, why_no_torch
from jaxvalues.bench.feed import TINY, WAYS, feed
from jaxvalues.bench.presets import run_preset
from jaxvalues.bench.sweep import GPT2_PROMPT, sweep
from jaxvalues.config import parse_config
from jaxvalues.config.trees import merge
from jaxvalues.data.held_out import load_parts
from jaxvalues.errors import UserError
from jaxvalues.report.bench_chart import chart
from jaxvalues.run.estimate import epoch_size
from jaxvalues.run.together import together_key

MACHINE = {"processor": "a processor", "cores": 2, "python": "3.11", "versions": {"jax": "0"}, "load_before": [0, 0, 0]}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def measured(seconds: float = 1.0) -> dict[str, Any]:
    """What the preset `compile` finds, made up."""
    ways = {
        way: {
            "first_s": seconds * (number + 1), "steady_s": 0.1 * seconds, "trace_s": 1.0, "lower_s": 1.0,
            "compile_s": 1.0, "peak_bytes": 1e9, "dtype": "float32", "parameters": 1, "cache_bytes": 0, "hits": 0,
            "executables": 1, "device": "1 × cpu", "platform": "cpu",
        }
        for number, way in enumerate(JAX)
    }  # fmt: skip
    return {"bench": "compile", "cases": [{"network": "gpt2", "ways": ways}], "machine": MACHINE}


def test_a_network_that_fails_leaves_what_was_measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(config: Any, *_: Any) -> dict[str, Any]:
        if config.name == "gpt2":
            return measured()["cases"][0]["ways"]
        raise UserError("it failed")

    monkeypatch.setattr(compiling, "_measure", measure)
    monkeypatch.setattr(compiling, "why_no_torch", lambda: None)
    file = tmp_path / "bench.json"
    with pytest.raises(UserError, match="it failed"):
        run_preset("compile", Console(quiet=True), networks=["gpt2", "bert-base"], json_file=file)
    assert [case["network"] for case in read_result(file)["cases"]] == ["gpt2"]


@pytest.mark.parametrize(
    ("first", "steady_s", "step"),
    [(10.0, 0.5, 19), (10.0, 1.0, None), (10.0, 2.0, None), (0.5, 0.5, 1), (1.0, 1.0, 1), (1.5, 0.5, 2)],
)
def test_the_step_from_which_on_a_way_is_ahead(first: float, steady_s: float, step: int | None) -> None:
    eager = {"first_s": 1.0, "steady_s": 1.0}
    assert break_even({"first_s": first, "steady_s": steady_s}, eager) == step
    if step is not None:
        after = [first + (n - 1) * steady_s <= 1.0 + (n - 1) for n in range(1, step + 1)]
        assert after == [False] * (step - 1) + [True]


def test_every_way_has_its_eager_one() -> None:
    assert set(EAGER) == {*JAX, *TORCH}
    assert set(EAGER.values()) == {JAX[0], TORCH[0]}


def test_compiles_and_cache_hits_are_counted_in_the_block_alone() -> None:
    import jax

    jax.jit(lambda x: x + 3.5)(1.0)
    with Events() as events:
        jax.jit(lambda x: x * 2.5)(1.0)
    jax.jit(lambda x: x - 1.5)(1.0)
    found = events.result()
    assert found["executables"] == 1
    assert min(found["trace_s"], found["lower_s"], found["compile_s"]) > 0
    assert found["hits"] + found["misses"] <= 1


def test_a_short_step_is_measured_often() -> None:
    done: list[int] = []
    found = steady(lambda: done.append(1))
    assert len(done) == len(found["samples_s"]) == 50


def test_what_torch_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: object())
    assert (
        why_no_torch() == "torch is left out: torch.compile needs a C++ compiler, and neither g++ nor clang++ is here."
    )
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    assert why_no_torch() == "torch is left out: it is not installed (pip install 'jaxvalues[parity]')."


def test_the_configs_of_presets() -> None:
    assert [config_of(name).formulation.kind for name in NETWORKS] == ["classify", "classify", "answer", "answer"]
    config = parse_config(GPT2_PROMPT)
    assert together_key(config) is not None
    assert config.training.epochs * epoch_size(config, load_parts(config.data)).steps == 100


def test_two_measurements_side_by_side() -> None:
    out = io.StringIO()
    pairs = compare_results(measured(), measured(2.0), Console(file=out, width=160))
    assert len(pairs) == len(figures(measured())) == len(JAX) * 5
    assert {round(b.value / a.value, 6) for a, b in pairs if a.what in ("step", "first step")} == {2.0}
    said = " ".join(out.getvalue().split())
    assert "before: gpt2 in float32; a processor, 2 cores, load 0.0 before the start; Python 3.11, jax 0" in said
    other = copy.deepcopy(measured())
    other["cases"][0]["network"] = "t5-base"
    with pytest.raises(UserError, match="share no figure"):
        compare_results(measured(), other, Console(file=out))


@pytest.mark.parametrize("results", [[measured()], [measured(), measured(2.0)]])
def test_the_chart_is_one_svg_that_names_the_machine(results: list[dict[str, Any]]) -> None:
    svg = chart(results)
    texts = " ".join(ET.fromstring(svg).itertext())
    assert "a processor" in texts
    assert "loaded executable" in texts
    assert ("first step, before" in texts) == (len(results) == 2)
    assert chart(results) == svg


def test_the_command_line_compares(tmp_path: Path) -> None:
    files = [tmp_path / "before.json", tmp_path / "after.json"]
    for file, seconds in zip(files, (1.0, 2.0), strict=True):
        file.write_text(json.dumps(measured(seconds)))
    words = [word for file in files for word in ("--compare", file)]
    code, out, _ = command("bench", *words, "--chart", tmp_path / "chart.svg")
    assert code == 0
    assert "after / before" in out
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")
    assert read_result(files[0]) == measured()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a config file to measure, --preset NAME, or two files to --compare"),
        (["--preset", "speed"], "--preset is `speed`, expected one of compile, sweep, feed"),
        (
            ["--preset", "compile", "--network", "bert"],
            "--network is `bert`, expected one of bert-base, deberta-v3-base",
        ),
        (["--preset", "feed", "--network", "gpt2"], "--network belongs to --preset compile"),
        (["--preset", "sweep", "tuning.method=full"], "runs of tuning.method full do not train together"),
        (["--preset", "feed", "training.speed=1"], "training.speed"),
        (["--compare", "{folder}/a.json"], "--compare needs two files"),
        (["--compare", "{folder}/a.json", "--compare", "{folder}/a.json"], "holds no measurement"),
        (["--preset", "feed", "--chart", "{folder}/no/chart.svg"], "no does not exist"),
    ],
)
def test_bad_words(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"machine": {}, "bench": "compile"}))
    code, _, err = command("bench", *(word.format(folder=tmp_path) for word in words))
    assert code in (1, 2)
    assert said in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_feed_of_a_few_steps(quick_compiles: None) -> None:
    found = feed(
        parse_config(merge(TINY, {"runtime": {"compilation_cache": None}})), Console(quiet=True), steps=5, turns=2
    )
    assert {way: len(samples) for way, samples in found["samples"].items()} == dict.fromkeys(WAYS, 2)
    assert len(figures(found)) == len(WAYS)
    assert found["share_of_resident"]["resident"] == 1


@pytest.mark.exhaustive
def test_a_sweep_of_two_rates() -> None:
    network = {"model_type": "gpt2", "vocab_size": 1000, "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128}
    tree = merge(GPT2_PROMPT, {"data": {"fraction": 0.05}, "model": {"dtype": "float32"}})
    tree["model"]["config"] = network
    found = sweep(parse_config(tree), Console(quiet=True), rates=2)
    assert found["largest_difference_of_logits"] < 1e-4
    assert len(figures(found)) == 6
    assert found["share"] > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("network", ["bert-base", "gpt2"])
def test_every_way_to_start_a_step(network: str) -> None:
    tree = config_of(network).model_dump(mode="json")
    small = {"n_embd": 64, "n_layer": 2, "n_head": 2} if network == "gpt2" else SMALL
    tree["model"]["config"] = {**NETWORKS[network], **small, "vocab_size": 1000}
    kept: list[dict[str, Any]] = []
    found = compiling.compiling([parse_config(tree)], Console(quiet=True), kept.append)
    assert kept == [found]
    ways = found["cases"][0]["ways"]
    assert list(ways) == [*JAX, *(TORCH if found["left_out"] is None else ())]
    assert ways["op by op"]["executables"] > 10 * ways["jit"]["executables"]
    assert (ways["jit"]["misses"], ways["warm cache"]["hits"], ways["warm cache"]["misses"]) == (1, 1, 0)
    assert ways["loaded executable"]["trace_s"] == 0
