"""Checkpoints: bit for bit on any mesh, scanned or unrolled; whole or absent; a sentence where one does not fit."""

from __future__ import annotations

import resource
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

from jaxvalues.config import MeshConfig
from jaxvalues.errors import UserError
from jaxvalues.models.layers.layout import group, segments_for, ungroup
from jaxvalues.run.system import System
from jaxvalues.training.checkpoints import Checkpoints
from jaxvalues.training.sharding import make_mesh, tree_shardings
from jaxvalues.training.step import TrainState

DEEP = {**tiny.ROBERTA, "num_hidden_layers": 3}
LAST = {"tuning": {"method": "last_layers", "layers": 2}}


def system(scan: bool, mesh: MeshConfig, *changes: dict[str, Any]) -> System:
    """A network of 3 layers."""
    return tiny.system(tiny.config({"model": {"scan": scan, "config": DEEP}}, *changes), make_mesh(mesh))


def filled(system: System, seed: int = 0) -> TrainState:
    """A training state of random numbers, on the system's mesh."""
    random, shapes = np.random.default_rng(seed), system.abstract_state()
    arrays = jax.tree.map(lambda x: np.asarray(random.normal(size=x.shape) * 100).astype(x.dtype), shapes)
    return jax.device_put(arrays, tree_shardings(shapes, system.mesh))


def bits(state: TrainState) -> dict[str, bytes]:
    """{path: bytes} of a state, unrolled."""
    state = jax.tree.map(np.asarray, state)
    flat = {"step": state.step, "count": state.optimizer.count}
    for name, tree in (("p", state.trainable), ("mu", state.optimizer.mu), ("nu", state.optimizer.nu)):
        flat |= {f"{name}/{path}": leaf for path, leaf in flatten_dict(ungroup(tree), sep="/").items()}
    return {path: leaf.tobytes() for path, leaf in flat.items()}


@pytest.mark.slow
@pytest.mark.main_cases("False-last_layers", "True-full")
@pytest.mark.parametrize("changes", [(), (LAST,)], ids=["full", "last_layers"])
@pytest.mark.parametrize("scan", [False, True])
def test_a_state_is_read_on_another_mesh_and_the_other_way_of_stacking_with_the_same_bits(
    tmp_path: Path, scan: bool, changes: tuple[dict[str, Any], ...]
) -> None:
    old = system(scan, MeshConfig(data=2, fsdp=4), *changes)
    state, memory = filled(old), {"best_score": 0.1 + 0.2, "best_step": 7, "evaluated": -1}
    series = Checkpoints(tmp_path)
    series.save(12, state, old.segments, memory)
    series.close()

    new = system(not scan, MeshConfig(data=2, fsdp=2, tensor=2), *changes)
    target = new.abstract_state()
    restored, remembered = Checkpoints(tmp_path).restore(target, new.segments, new.mesh)
    assert remembered == memory
    assert bits(restored) == bits(state)
    expected = tree_shardings(target, new.mesh)
    same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), restored, expected)
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_the_newest_checkpoints_stay_and_one_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    small = system(False, MeshConfig(), LAST)
    series = Checkpoints(tmp_path, keep=2)
    states = {step: filled(small, seed=step) for step in (3, 1, 2)}
    for step in (1, 2, 3):
        series.save(step, states[step], small.segments, {})
    series.save(3, states[1], small.segments, {})
    series.wait()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]
    restored, _ = series.restore(small.abstract_state(), small.segments, small.mesh)
    assert bits(restored) == bits(states[3])


@pytest.mark.slow
def test_a_half_written_checkpoint_does_not_count_and_is_written_anew(tmp_path: Path) -> None:
    small = system(False, MeshConfig(), LAST)
    series = Checkpoints(tmp_path / "whole", keep=2)
    for step in (1, 2):
        series.save(step, filled(small, step), small.segments, {"at": step})
    series.close()
    # Orbax writes under a temporary name and renames last: this is what a kill in the middle leaves behind.
    shutil.copytree(tmp_path / "whole" / "1", tmp_path / "killed" / "1")
    unfinished = tmp_path / "killed" / "2.orbax-checkpoint-tmp-1700000000000000"
    shutil.copytree(tmp_path / "whole" / "2" / "state", unfinished / "state.orbax-checkpoint-tmp-1700000000000001")

    series = Checkpoints(tmp_path / "killed", keep=2)
    assert series.latest() == 1
    restored, memory = series.restore(small.abstract_state(), small.segments, small.mesh)
    assert bits(restored) == bits(filled(small, 1))
    assert memory == {"at": 1}
    assert not unfinished.exists()
    series.save(2, filled(small, 2), small.segments, {"at": 2})
    series.close()
    restored, memory = Checkpoints(tmp_path / "killed").restore(small.abstract_state(), small.segments, small.mesh)
    assert bits(restored) == bits(filled(small, 2))
    assert memory == {"at": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"formulation": {"heads": "multiple"}},
            "head/kernel is (64, 20) in the checkpoint and (20, 64) in the config",
        ),
        (
            {"tuning": {"method": "last_layers", "layers": 3}},
            "/bias is absent in the checkpoint and (64,) in the config",
        ),
        (
            {"model": {"config": {**DEEP, "intermediate_size": 192}}},
            "(128, 64) in the checkpoint and (192, 64) in the config",
        ),
    ],
    ids=["other heads", "more layers", "wider"],
)
def test_a_checkpoint_that_does_not_fit_is_one_sentence(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    old = system(False, MeshConfig(), LAST)
    series = Checkpoints(tmp_path)
    series.save(5, filled(old), old.segments, {})
    series.wait()
    new = system(False, MeshConfig(), LAST, other)
    with pytest.raises(UserError) as error:
        series.restore(new.abstract_state(), new.segments, new.mesh)
    assert str(error.value).startswith(f"{tmp_path}: checkpoint 5 does not fit this config: ")
    assert "\n" not in str(error.value)
    assert said in str(error.value)


@pytest.mark.slow
def test_a_stack_of_which_only_a_part_is_asked_for_is_one_sentence(tmp_path: Path) -> None:
    old = system(True, MeshConfig(), LAST)
    series = Checkpoints(tmp_path)
    series.save(5, filled(old), old.segments, {})
    series.wait()
    new = system(False, MeshConfig(), {"tuning": {"method": "last_layers", "layers": 1}})
    with pytest.raises(UserError, match=r"checkpoint 5 does not fit this config: layers 1 to 2 .* layer 1 is not in"):
        series.restore(new.abstract_state(), new.segments, new.mesh)


def test_a_folder_without_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    small = system(False, MeshConfig(), LAST)
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        Checkpoints(tmp_path).restore(small.abstract_state(), small.segments, small.mesh)


def adapters(scan: bool, depth: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run of T5 trains: low-rank changes on both sides, of other depth, and a prefix; and how it is grouped."""
    segments = {"encoder": segments_for(2, scan), "decoder": segments_for(depth, scan)}
    random = np.random.default_rng(0)

    def layers(depth: int) -> dict[str, Any]:
        return {"layers": {str(i): {"query": {"a": random.normal(size=(16, 2))}} for i in range(depth)}}

    tree = {
        "lora": {"encoder": layers(2), "decoder": layers(depth)},
        "prefix": {"decoder": random.normal(size=(3, 2, 4))},
    }
    tree = jax.tree.map(np.float32, tree)
    return {"p": group(tree, segments), "mu": group(tree, segments)}, segments


@pytest.mark.parametrize("scan", [False, True])
def test_the_layers_of_an_encoder_and_a_decoder_are_grouped_apart(tmp_path: Path, scan: bool) -> None:
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    tree, segments = adapters(scan)
    series = Checkpoints(tmp_path)
    series.save(3, jax.device_put(tree, tree_shardings(tree, mesh)), segments, {"at": 3})
    series.close()
    for other in (scan, not scan):
        target, wanted = adapters(other)
        restored, memory = Checkpoints(tmp_path).restore(jax.eval_shape(lambda t=target: t), wanted, mesh)
        assert memory == {"at": 3}
        assert jax.tree.structure(restored) == jax.tree.structure(target)
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, restored), target)


def test_a_deeper_decoder_is_one_sentence(tmp_path: Path) -> None:
    mesh = make_mesh(MeshConfig())
    tree, segments = adapters(True)
    series = Checkpoints(tmp_path)
    series.save(3, jax.device_put(tree, tree_shardings(tree, mesh)), segments, {})
    series.wait()
    target, wanted = adapters(False, depth=4)
    with pytest.raises(UserError, match="checkpoint 3 does not fit this config: layer 3 belongs to none of the seg"):
        series.restore(target, wanted, mesh)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.slow
def test_a_flipped_byte_is_named_and_a_checkpoint_without_sums_is_read(tmp_path: Path) -> None:
    small = system(False, MeshConfig(), LAST)
    state = filled(small)
    series = Checkpoints(tmp_path / "resume")
    series.save(4, state, small.segments, {})
    series.close()
    target = (small.abstract_state(), small.segments, small.mesh)
    assert bits(Checkpoints(tmp_path / "resume", read_only=True).restore(*target)[0]) == bits(state)
    for file in sorted(path for path in (tmp_path / "resume/4").rglob("*") if path.is_file()):
        if not file.stat().st_size:
            continue
        flip(file)
        with pytest.raises(UserError, match=f"{file}: differs from what the run wrote"):
            Checkpoints(tmp_path / "resume", read_only=True).restore(*target)
        flip(file)
    file.unlink()
    with pytest.raises(UserError, match=f"{file}: is absent"):
        Checkpoints(tmp_path / "resume", read_only=True).restore(*target)
    file.touch()
    shutil.rmtree(tmp_path / "resume/4")  # the same step, written anew by a run that began again and was killed
    again = Checkpoints(tmp_path / "resume")
    again.save(4, filled(small, 1), small.segments, {})
    again.wait()
    assert not (tmp_path / "resume.json").exists()
    assert bits(again.restore(*target)[0]) == bits(filled(small, 1))


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder, expected the checkpoints of a run"):
        Checkpoints(tmp_path / "chosen", read_only=True)
    (tmp_path / "chosen").write_text("")
    with pytest.raises(UserError, match="chosen: is a file, expected the folder of checkpoints"):
        Checkpoints(tmp_path / "chosen")
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_sentence_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = system(False, MeshConfig(), LAST)
    series = Checkpoints(tmp_path / "resume")
    series.save(1, filled(small, 1), small.segments, {})
    series.wait()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(UserError) as caught, closing(series):
            series.save(2, filled(small, 2), small.segments, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'resume'}: a checkpoint cannot be written (")
    assert said.endswith("make space, then run the same command to resume")
    assert len(said) < 300

    before = None
    while before != (now := sorted(map(str, (tmp_path / "resume").rglob("*")))):  # late writes of step 2
        before = now
        time.sleep(1)
    after = Checkpoints(tmp_path / "resume")
    assert after.latest() == 1
    restored, _ = after.restore(small.abstract_state(), small.segments, small.mesh)
    assert bits(restored) == bits(filled(small, 1))
    after.save(3, filled(small, 3), small.segments, {})
    after.close()
    assert Checkpoints(tmp_path / "resume", read_only=True).latest() == 3
