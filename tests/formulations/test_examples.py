"""Examples in context: other conclusions, an order by seed, nearest neighbours, what a run keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from jaxvalues.config import ExamplesConfig
from jaxvalues.data.arguments import IN_FAVOR, Argument, Split
from jaxvalues.data.conclusions import normalize_conclusion
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.examples import Examples

CHOICES = ("seed", "balanced", "nearest")


def examples(choose: str, count: int = 4, seed: int = 0) -> Examples:
    return Examples.make(ExamplesConfig(count=count, choose=choose, seed=seed), tiny.split())


@pytest.mark.parametrize("choose", CHOICES)
def test_no_example_shares_a_conclusion(choose: str) -> None:
    for argument, shown in zip(tiny.split().arguments, examples(choose).of(tiny.split().arguments), strict=True):
        conclusions = [normalize_conclusion(one.conclusion) for one in (argument, *(each.argument for each in shown))]
        assert len(set(conclusions)) == 5


@pytest.mark.parametrize("choose", CHOICES)
def test_answers_are_those_of_the_labels(choose: str) -> None:
    labels = dict(zip(tiny.split().ids, tiny.split().labels, strict=True))
    for shown in examples(choose).of(tiny.split().arguments[:9]):
        assert all(one.is_yes == labels[one.argument.id][one.category] for one in shown)
        if choose != "seed":
            assert [one.is_yes for one in shown] in ([True, False] * 2, [False, True] * 2)


def test_the_seed_decides_examples_and_order() -> None:
    def ids(seed: int) -> list:
        (shown,) = examples("seed", seed=seed).of(tiny.split().arguments[:1])
        return [(one.argument.id, one.category) for one in shown]

    assert ids(0) == ids(0)
    assert ids(0) != ids(1)


def test_the_nearest_comes_last() -> None:
    topics = ["whales feel pain", "cars make noise", "whales and dolphins feel much pain", "taxes are high"]
    arguments = tuple(Argument(f"A{i}", f"topic {i}", IN_FAVOR, text) for i, text in enumerate(topics))
    labels = np.tile(np.arange(20) < 3, (4, 1)).astype(np.int8)
    pool = Examples.make(ExamplesConfig(count=2, choose="nearest"), Split("training", arguments, labels))
    (shown,) = pool.of([Argument("B", "whaling", IN_FAVOR, "whales feel much pain")])
    assert [one.argument.id for one in shown] == ["A0", "A2"]
    (shown,) = pool.of([Argument("B", "topic 2", IN_FAVOR, "whales feel much pain")])  # the nearest is about the same
    assert shown[-1].argument.id == "A0"


@pytest.mark.parametrize("choose", CHOICES)
def test_a_run_reads_back_what_it_kept(choose: str) -> None:
    written = examples(choose)
    again = Examples.read(written.config, written.text, seed=9)
    arguments = tiny.split().arguments[:20]
    for shown, same in zip(written.of(arguments), again.of(arguments), strict=True):
        assert [(one.argument, one.category, one.is_yes) for one in shown] == [
            (one.argument, one.category, one.is_yes) for one in same
        ]
    assert len(written.pool) == (230 if choose == "nearest" else 5)
    with pytest.raises(UserError, match="the examples of the run cannot be read"):
        Examples.read(written.config, written.text[:-9])


def test_too_few_conclusions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"count is 900, but the training arguments have only \d+ conclusions"):
        examples("balanced", count=900)
