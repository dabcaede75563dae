"""The map of held-out arguments before and after contrastive training, with a measure of how far values separate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from jaxvalues.data.taxonomy import GROUPS, TAXONOMY
from jaxvalues.report.drawing import COLORS, FAINT, MARKS, Picture, drawing, picture, shown
from jaxvalues.report.table import Table
from jaxvalues.report.words import figure
from jaxvalues.run.embeddings import Embedded
from jaxvalues.study.results import StudyResults

_MOST = 4
"""As many systems as stand below each other on a page."""


def embedding_map(results: StudyResults) -> Picture | None:
    """The first run of each system with a contrastive loss: principal components of its unit embeddings."""
    systems: dict[str, Mapping[str, Embedded]] = {}
    for name, one in results.systems.items():
        maps = next((run.embeddings for run in one.runs if len(run.embeddings) == 2), None)
        if maps is not None and len(systems) < _MOST:
            systems[name] = maps
    if not systems:
        return None
    name, title = "embeddings", "Held-out arguments before and after contrastive training"
    rows = []
    with drawing(name, 7.2, 3.4 * len(systems) + 0.5) as drawn:
        axes = drawn.subplots(len(systems), 2, squeeze=False)
        for line, (label, maps) in zip(axes, systems.items(), strict=True):
            for ax, (when, found) in zip(line, maps.items(), strict=True):
                group, share = groups_of(found.labels), separation(found)
                points = principal_components(unit(found.embeddings))
                for place, each in enumerate((*GROUPS, "none")):
                    here = group == place
                    look = {"color": COLORS[place], "marker": MARKS[place]} if place < len(GROUPS) else {"color": FAINT}
                    ax.scatter(*points[here].T, s=9, alpha=0.6, linewidths=0, label=shown(each), **look)
                ax.set_title(f"{shown(label)}, {when}: separation {figure(share)}", fontsize=9)
                ax.set_xticks([])
                ax.set_yticks([])
                rows.append((label, when, figure(share), f"{len(found.labels):,}"))
        handles, labels = axes[0][0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        said = "; ".join(
            f"{label} from {figure(separation(maps['before']))} to {figure(separation(maps['after']))}"
            for label, maps in systems.items()
        )
        finding = (
            f"Separation, before and after: {said}. It is the chance that two arguments that share a value are nearer "
            "to each other than two that share none; .5 means no separation. Colours: the higher-order value that "
            "most of an argument's values belong to."
        )
        table = Table(name, title + ".", ("System", "When", "Separation", "n"), tuple(rows))
        return picture(drawn, name, title, finding, table)


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [n, E] of length 1, as the cosine similarity of the loss sees them."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def principal_components(points: np.ndarray) -> np.ndarray:
    """The first two principal components [n, 2] of points [n, E]."""
    centred = points - points.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((2, points.shape[1]), points.dtype)
    flat[: min(2, len(directions))] = directions[:2]  # fewer arguments or dimensions than two
    return centred @ flat.T


def separation(found: Embedded) -> float:
    """The chance that a pair of arguments that share a value is more similar than a pair that shares none.

    The area under the ROC curve of the cosine similarity, over all pairs: .5 where similarity knows nothing of values,
    1 where it knows everything; nan where all pairs are of one kind.
    """
    first, second = np.triu_indices(len(found.labels), k=1)
    points, labels = unit(found.embeddings), found.labels.astype(np.int32)
    similar = (points @ points.T)[first, second]
    share = (labels @ labels.T)[first, second] > 0
    positives, negatives = int(share.sum()), int((~share).sum())
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(similar)[share].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def groups_of(labels: np.ndarray) -> np.ndarray:
    """The number [n] of the higher-order value that most values of an argument belong to; their count for none."""
    belongs = np.array([[group in category.groups for group in GROUPS] for category in TAXONOMY], np.int32)
    counts = labels.astype(np.int32) @ belongs
    return np.where(counts.any(axis=1), counts.argmax(axis=1), len(GROUPS))
