"""The decision of a run: thresholds for its probabilities, chosen on held-out arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxvalues.config import DecisionConfig
from jaxvalues.evaluation.thresholds import tune_global, tune_per_category


@dataclass(frozen=True, eq=False)
class Decision:
    """The thresholds [C] of a run, and a description of how they were chosen."""

    thresholds: np.ndarray
    how: str

    @property
    def span(self) -> str:
        """The thresholds as text: one number, or the lowest and the highest."""
        low, high = self.thresholds.min(), self.thresholds.max()
        return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities [n, C] float32 from logits [n, C]. Large logits do not overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)


def choose_thresholds(
    config: DecisionConfig,
    truth: np.ndarray,
    probabilities: np.ndarray,
    tune: Callable[[np.ndarray, np.ndarray], float] = tune_global,
) -> Decision:
    """The decision that the config defines. Thresholds are tuned on held-out labels and probabilities, both [n, C].

    `tune` returns the one threshold for all categories, from labels and probabilities.
    """
    match config.threshold:
        case "fixed":
            thresholds, how = config.value, f"fixed threshold {config.value:g}"
        case "tuned":
            thresholds, how = tune(truth, probabilities), "one threshold"
        case "tuned_per_category":
            thresholds, how = tune_per_category(truth, probabilities), "a threshold per category"
    if config.threshold != "fixed":
        how += f" tuned on {len(truth)} held-out arguments"
    return Decision(np.broadcast_to(np.asarray(thresholds, np.float64), probabilities.shape[1]), how)
