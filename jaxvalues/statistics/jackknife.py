"""The standard error and the bias of a figure, from its values without each group (Efron & Stein 1981)."""

from __future__ import annotations

import numpy as np


def jackknife_se(left_out: np.ndarray) -> float:
    """The standard error from the figure without each of G groups [G]. On average it is not too small."""
    return float(np.sqrt((len(left_out) - 1) * left_out.var()))


def jackknife_bias(estimate: float, left_out: np.ndarray) -> float:
    """How far the estimate lies above the population's figure, from the figure without each group [G]."""
    return float((len(left_out) - 1) * (left_out.mean() - estimate))


def effective_df(left_out: np.ndarray) -> float:
    """The degrees of freedom of that standard error, from the same values: at most G - 1.

    Where few of the squared deviations d decide their sum, it has 3 (Σ d²)² / Σ d⁴ degrees of freedom (Satterthwaite
    1946, with the fourth moments of normal d).
    """
    squares = np.square(left_out - left_out.mean())
    fourth = float(np.square(squares).sum())
    most = len(left_out) - 1
    return float(np.clip(3 * squares.sum() ** 2 / fourth, 1, most)) if fourth > 0 else float(most)
