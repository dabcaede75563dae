"""The training step on a real network: what changes, what does not, and that the ways to compute it agree."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict

from jaxvalues.data.batches import epoch_plan
from jaxvalues.models.layers.layout import ungroup
from jaxvalues.run.prediction import likelihood_logits
from jaxvalues.run.system import Weights

STEPS = 3
LAST = {"tuning": {"method": "last_layers", "layers": 1}}
BITFIT = {"tuning": {"method": "bitfit"}}
# Without clipping every layer moves on its own gradient alone; the large eps keeps rounding noise in gradients that
# are 0 in theory (a key's bias) from becoming whole steps.
PLAIN = {"optimizer": {"clip_norm": None, "eps": 1e-3}}


def flat(tree: Any) -> dict[str, np.ndarray]:
    """{path: array} of a tree, unrolled."""
    return flatten_dict(jax.tree.map(np.asarray, ungroup(tree)), sep="/")


def run(*changes: dict[str, Any]) -> dict[str, Any]:
    """Some steps with dropout; the losses, and the parameters before and after."""
    one = tiny.Run(tiny.config(PLAIN, *changes))
    frozen, before = flat(one.frozen), flat(one.state.trainable)
    first = one.losses(1)
    after_first = flat(one.state.trainable)
    losses = first + one.losses(STEPS - 1)
    assert int(one.state.step) == STEPS
    return {
        "losses": losses, "before": before, "after_first": after_first, "after": flat(one.state.trainable),
        "frozen": frozen, "frozen_after": flat(one.frozen), "run": one,
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(quick_compiles: None) -> dict[tuple[str, bool], dict[str, Any]]:
    """The same steps with everything and with the last layer training, unrolled and scanned."""
    kinds = {"full": {}, "last": LAST}
    ways = {(name, scan): run(kinds[name], {"model": {"scan": scan}}) for name in kinds for scan in (False, True)}
    return ways | {("bitfit", False): run(BITFIT)}


@pytest.mark.main_cases("kind3")
@pytest.mark.slow
@pytest.mark.parametrize("kind", [("full", False), ("full", True), ("last", False), ("last", True), ("bitfit", False)])
def test_everything_trainable_changes_and_nothing_frozen(runs: dict, kind: tuple[str, bool]) -> None:
    one = runs[kind]
    assert one["before"].keys() | one["frozen"].keys() == flat(tiny.canonical_params()).keys()
    unchanged = {path for path, leaf in one["before"].items() if (leaf == one["after"][path]).all()}
    assert {path for path in unchanged if not path.endswith("attention/key/bias")} == set()
    assert bool(one["frozen"]) is (kind[0] != "full")
    for path, leaf in one["frozen"].items():
        assert leaf.tobytes() == one["frozen_after"][path].tobytes(), path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "last"])
def test_scanned_and_unrolled_give_the_same_run(runs: dict, name: str) -> None:
    unrolled, scanned = runs[name, False], runs[name, True]
    np.testing.assert_allclose(unrolled["losses"], scanned["losses"], atol=1e-5)
    assert unrolled["after"].keys() == scanned["after"].keys()
    for path, leaf in unrolled["after"].items():
        np.testing.assert_allclose(leaf, scanned["after"][path], atol=1e-5, err_msg=path)


def test_dropout_is_drawn_anew_at_every_step_and_again_the_same_in_every_run(runs: dict) -> None:
    one = runs["full", False]["run"]
    batch, still = next(one.batches.starting_at(0)), one.hyper._replace(learning_rate=np.float32(0))

    def losses(hyper: Any) -> list[float]:
        one.restart()
        return [one.step(batch, hyper)["loss"] for _ in range(3)]  # the same rows, and parameters that do not move

    assert len(set(losses(still))) == 3
    assert losses(still) == losses(still)
    assert not set(losses(still)) & set(losses(still._replace(seed=np.uint32(1))))


def test_freezing_changes_no_gradient_of_what_trains(runs: dict) -> None:
    full, last = runs["full", False], runs["last", False]
    np.testing.assert_allclose(full["losses"][0], last["losses"][0], atol=1e-6)
    for path, leaf in last["after_first"].items():
        np.testing.assert_allclose(leaf, full["after_first"][path], atol=1e-6, err_msg=path)
    assert abs(full["losses"][-1] - last["losses"][-1]) > 1e-4  # the lower layers did train in the one


@pytest.fixture(scope="module")
def whole(quick_compiles: None) -> tiny.Run:
    """Batches of 16 at once, without dropout."""
    return tiny.Run(tiny.config(PLAIN, tiny.NO_DROPOUT))


@pytest.mark.slow
def test_micro_batches_are_one_batch_whatever_is_padding(whole: tiny.Run) -> None:
    """Rows of weight 0 fill some of the 4 micro-batches wholly, and whatever they hold counts for nothing."""
    whole.restart()
    parts = tiny.Run(tiny.config(PLAIN, tiny.NO_DROPOUT, {"training": {"accumulation": 4}}))
    random = np.random.default_rng(0)
    stream = whole.batches.starting_at(0)
    for real in (16, 11, 1):
        batch = next(stream)
        batch["weights"] = (np.arange(16) < real).astype(np.float32)
        other = {name: array.copy() for name, array in batch.items()}
        other["input_ids"][real:] = random.integers(5, 600, other["input_ids"][real:].shape)
        other["labels"][real:] = 1
        one, many = whole.step(batch), parts.step(other)
        assert one.keys() == {"loss", "positives", "learning_rate", "grad_norm"}
        for name in one:
            np.testing.assert_allclose(one[name], many[name], atol=1e-5, err_msg=f"{name} with {real} real rows")
    for path, leaf in flat(whole.state.trainable).items():
        np.testing.assert_allclose(leaf, flat(parts.state.trainable)[path], atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_eight_rows_and_padding_are_the_eight_rows_twice(whole: tiny.Run) -> None:
    """The mean over real rows is the same, and so must be the update."""
    batch = next(whole.batches.starting_at(0))
    twice = {name: np.concatenate([array[:8], array[:8]]) for name, array in batch.items()}
    padded = {**batch, "weights": (np.arange(16) < 8).astype(np.float32)}
    ends = []
    for one in (twice, padded):
        whole.restart()
        ends.append((whole.step(one), flat(whole.state.trainable)))
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-6)
    for path, leaf in ends[0][1].items():
        np.testing.assert_allclose(leaf, ends[1][1][path], atol=1e-6, err_msg=path)


@pytest.mark.slow
def test_the_first_loss_is_the_mean_over_real_rows_of_what_the_evaluation_sees(whole: tiny.Run) -> None:
    whole.restart()
    logits = likelihood_logits(whole.system, Weights(whole.frozen, whole.state.trainable), whole.tokens).astype(
        np.float64
    )
    losses = (np.logaddexp(0, logits) - whole.tokens.labels * logits).mean(axis=1)
    planned = epoch_plan(whole.tokens.lengths, whole.batches.buckets, 16, seed=0, epoch=0)[0]
    metrics = whole.step(next(whole.batches.starting_at(0)))
    np.testing.assert_allclose(metrics["loss"], losses[planned.rows].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["positives"], (logits[planned.rows] > 0).mean(), rtol=1e-6)
