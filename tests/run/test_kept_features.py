"""Features of frozen layers on disk: the same bits for every run that shares them, and for no other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from jaxvalues.data.batches import Tokens
from jaxvalues.errors import UserError
from jaxvalues.run.base import Base
from jaxvalues.run.features import kept_features
from jaxvalues.run.prediction import with_features
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System


def system(folder: Path, dtype: str = "bfloat16", **changes: Any) -> System:
    """A tiny system whose classifier trains alone, with weights of a name."""
    tuning = {"method": "head", "dropout_below": False}
    sections = {"tuning": tuning, "runtime": {"features": str(folder)}, "model": {"dtype": dtype}}
    made = tiny.system(tiny.config(sections, changes))
    made.identity = "weights"
    return made


def tokens(number: int = 40) -> Tokens:
    made = tiny.system(tiny.config()).formulation.encode(tiny.split().arguments[:number])
    return dataclasses.replace(made, labels=None)


def never() -> Any:
    raise AssertionError("computed again")


def test_what_one_run_computed_another_reads_bit_for_bit(tmp_path: Path, quick_compiles: None) -> None:
    first, some, said = system(tmp_path / "kept"), tokens(), []
    weights = initial_weights(first, Base({}, None, "random"), 0)
    first.identity = None
    alone = with_features(first, weights, some, said.append)
    assert not (tmp_path / "kept").exists()
    first.identity = "weights"
    written = with_features(first, weights, some, said.append)
    (file,) = (tmp_path / "kept").iterdir()
    assert said == [f"the output of the frozen layers is kept in {tmp_path / 'kept'} (0.2 MiB)"]

    second = system(tmp_path / "kept", optimizer={"learning_rate": 0.1}, formulation={"template": "cls"})
    read = kept_features(second, some, never, said.append)
    assert len(said) == 1
    assert [row.shape for row in read] == [(len(ids), 64) for ids in some.ids]
    for one, other, third in zip(alone.hidden, written.hidden, read, strict=True):
        assert one.dtype == third.dtype == second.network.dtype
        np.testing.assert_array_equal(one.view(np.uint16), third.view(np.uint16))
        np.testing.assert_array_equal(one.view(np.uint16), other.view(np.uint16))

    content = file.read_bytes()
    file.write_bytes(content[:-1])  # of a disk that was full
    again = with_features(first, weights, some)
    assert file.read_bytes() == content
    np.testing.assert_array_equal(again.hidden[0].view(np.uint16), alone.hidden[0].view(np.uint16))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"dtype": "float32"}},
        {"model": {"quantization": "int8"}},
        {"training": {"eval_batch_size": 8}},
        {"data": {"max_length": 39, "buckets": [39]}},
        {"tuning": {"method": "last_layers", "layers": 1}},
        {"model": {"config": {**tiny.ROBERTA, "layer_norm_eps": 1e-3}}},
    ],
    ids=["dtype", "bits", "batch size", "lengths", "layer", "network"],
)
def test_what_decides_the_numbers_has_a_file_of_its_own(changes: dict[str, Any], tmp_path: Path) -> None:
    if "quantization" in changes.get("model", {}):
        pytest.importorskip("qwix")
    some = tokens(3)
    hidden = tuple(np.zeros((len(ids), 64), np.float32) for ids in some.ids)
    kept_features(system(tmp_path), some, lambda: hidden)
    with pytest.raises(AssertionError, match="computed again"):
        kept_features(system(tmp_path, **changes), some, never)
    other = system(tmp_path)
    other.identity = "other weights"
    with pytest.raises(AssertionError, match="computed again"):
        kept_features(other, some, never)
    with pytest.raises(AssertionError, match="computed again"):
        kept_features(system(tmp_path), tokens(2), never)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    some = tokens(3)
    with pytest.raises(UserError, match=r"file/.*npy: cannot be written \(Not a directory\)"):
        kept_features(system(tmp_path / "file"), some, lambda: tuple(np.zeros((len(ids), 64)) for ids in some.ids))
