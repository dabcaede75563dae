"""The map of embeddings: separation on cases with a known answer, and the figure of runs that have one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studies import planned, pretend

from jaxvalues.data.taxonomy import CATEGORIES, GROUPS
from jaxvalues.errors import UserError
from jaxvalues.report.embedding_map import embedding_map, groups_of, principal_components, separation
from jaxvalues.run.embeddings import Embedded, read_embeddings
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import Size

LABELS = np.eye(20, dtype=bool)[[0, 0, 0, 4, 4, 4]]


def test_separation_counts_the_pairs_in_the_right_order() -> None:
    apart = np.array([[1, 0.1], [1, 0.2], [1, 0.3], [0.1, 1], [0.2, 1], [0.3, 1]])
    assert separation(Embedded(apart, LABELS)) == 1
    assert separation(Embedded(5 * apart, LABELS)) == 1  # lengths do not matter
    assert separation(Embedded(np.ones((6, 3)), LABELS)) == 0.5  # ties count half
    mixed = np.array([[1, 0.0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]])
    similar = [np.dot(mixed[i], mixed[j]) for i in range(6) for j in range(i)]
    share = [bool((LABELS[i] & LABELS[j]).any()) for i in range(6) for j in range(i)]
    pairs = [(a > b) + 0.5 * (a == b) for a, s in zip(similar, share, strict=True) if s
             for b, t in zip(similar, share, strict=True) if not t]  # fmt: skip
    assert separation(Embedded(mixed, LABELS)) == pytest.approx(np.mean(pairs))
    assert np.isnan(separation(Embedded(apart, np.ones((6, 20), bool))))


def test_components_keep_distances_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 7))
    flat = principal_components(plane)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (plane, flat)]
    np.testing.assert_allclose(distances[1], distances[0], atol=1e-6)
    assert principal_components(np.ones((1, 3))).shape == (1, 2)


def test_an_argument_has_the_colour_of_most_of_its_values() -> None:
    labels = np.zeros((2, 20), bool)
    labels[
        0, [CATEGORIES.index("Achievement"), CATEGORIES.index("Power: dominance"), CATEGORIES.index("Tradition")]
    ] = 1
    assert groups_of(labels).tolist() == [list(GROUPS).index("Self-enhancement"), len(GROUPS)]


def test_only_contrastive_runs_have_a_map(tmp_path: Path) -> None:
    plan = planned(tmp_path, repeated={"seed": [0]})
    for name in plan.systems:
        for run in plan.runs(name, {}):
            pretend(run.config)
    results = analyse(plan, {name: Size(10, 20, 3e9) for name in plan.systems})
    assert embedding_map(results) is None
    strong = results.systems["strong"]
    folder = strong.runs[0].folder
    rng = np.random.default_rng(1)
    for when in ("before", "after"):
        np.savez(folder / f"embeddings-{when}.npz", embeddings=rng.normal(size=(6, 5)), labels=LABELS)
    found = read_embeddings(folder)
    assert list(found) == ["before", "after"]
    run = replace(strong.runs[0], embeddings=found)
    drawn = embedding_map(replace(results, systems={**results.systems, "strong": replace(strong, runs=(run,))}))
    assert drawn is not None
    assert [row[:2] for row in drawn.table.rows] == [("strong", "before"), ("strong", "after")]
    (folder / "embeddings-after.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match="not the embeddings of a run"):
        read_embeddings(folder)
