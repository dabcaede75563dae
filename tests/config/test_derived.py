"""What follows from a config: its fingerprint, the folder of its run, the lengths of its batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from jaxvalues.config import Config, parse_config
from jaxvalues.config.trees import without_nulls


def test_an_optional_key_more_changes_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before, decisive = tiny.config().fingerprint(), Config.decisive
    monkeypatch.setattr(Config, "decisive", lambda self: {**decisive(self), "new": None})
    assert tiny.config().fingerprint() == before
    assert without_nulls({"a": None, "b": {"c": None, "d": [None]}}) == {"b": {"d": [None]}}


def test_the_fingerprint_follows_what_decides_the_numbers() -> None:
    config = tiny.config()
    same = [
        {"mesh": {"fsdp": 2}},
        {"model": {"scan": True}},
        {"data": {"dir": "x"}},
        {"logging": {"tensorboard": True}},
    ]
    other = [{"optimizer": {"learning_rate": 2e-3}}, {"model": {"dropout": 0.2}}, {"data": {"held_out_seed": 1}}]
    assert {tiny.config(change).fingerprint() for change in same} == {config.fingerprint()}
    assert len({tiny.config(change).fingerprint() for change in other} | {config.fingerprint()}) == 1 + len(other)


def test_a_seed_of_new_weights_is_known_to_what_it_decides_and_to_that_alone() -> None:
    plain = tiny.config()
    other = plain.model_copy(update={"init_seed": 5})
    assert "init_seed" not in plain.decisive()  # folders of runs from before this key are found again
    assert other.fingerprint() != plain.fingerprint()
    assert other.program() == plain.program()  # its number is no part of a compiled step
    assert (plain.start_seed, other.start_seed, other.seed) == (0, 5, 0)


def test_placeholders_of_the_run_folder_are_filled_in() -> None:
    tree = {"model": {"path": "x"}, "output": "out/{name}/{seed}", "name": "a", "seed": 3}
    assert parse_config(tree).folder == Path("out/a/3")


def test_the_lengths_end_with_the_longest_input() -> None:
    assert tiny.config({"data": {"max_length": 40, "buckets": [16, 32, 64]}}).lengths == (16, 32, 40)
    assert tiny.config({"data": {"max_length": 64, "buckets": [16, 64]}}).lengths == (16, 64)
