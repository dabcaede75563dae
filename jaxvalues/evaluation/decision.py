"""The decision of a run: thresholds for its logits, chosen on held-out arguments, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logit

from jaxvalues.config import DecisionConfig
from jaxvalues.config.reading import read_json
from jaxvalues.config.writing import write_json
from jaxvalues.data.numbers import numeric_array
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import UserError
from jaxvalues.evaluation.thresholds import EXCLUDED, decide, is_asked, tune_global, tune_per_category

THRESHOLDS_FILE = "thresholds.json"


@dataclass(frozen=True, eq=False)
class Decision:
    """The thresholds [C] of a run, as logits, and a description of how they were chosen."""

    thresholds: np.ndarray
    how: str

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Decisions [n, C] int8 about logits [n, C]; 0 for categories that were not asked about (`EXCLUDED`)."""
        return np.where(is_asked(logits), decide(logits, self.thresholds), np.int8(0))

    @property
    def probabilities(self) -> np.ndarray:
        """The thresholds [C] as probabilities."""
        return sigmoid(self.thresholds)

    @property
    def span(self) -> str:
        """The thresholds as text, as probabilities and as logits: one number each, or the lowest and the highest."""
        (low, high), (p, q) = _ends(self.thresholds), _ends(self.probabilities)
        if low == high:
            return f"probability {_short(p)} (logit {low:.2f})"
        return f"probabilities {_short(p)} to {_short(q)} (logits {low:.2f} to {high:.2f})"

    def write(self, folder: str | Path, labels: Sequence[str] = CATEGORIES) -> None:
        """Write `thresholds.json`: the thresholds of all labels as logits and as probabilities, and how they came."""
        columns = {"logits": self.thresholds, "probabilities": self.probabilities}
        tables = {name: dict(zip(labels, values.tolist(), strict=True)) for name, values in columns.items()}
        path = Path(folder) / THRESHOLDS_FILE
        write_json(path, {"chosen": self.how, **tables})


def read_decision(folder: str | Path, labels: Sequence[str] = CATEGORIES) -> Decision:
    """The decision of a run folder. Raises UserError for a missing or faulty file.

    Earlier versions stored probabilities alone, under the key `thresholds`; they are read as such.
    """
    path = Path(folder) / THRESHOLDS_FILE
    content = read_json(path, "the thresholds of the run")
    try:
        is_old = "logits" not in content
        table = content["thresholds" if is_old else "logits"]
        thresholds = numeric_array(table[name] for name in labels)
        chosen = str(content["chosen"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: expected the keys 'chosen' and 'logits', with one number per category: {error}"
        ) from None
    if is_old:
        if not ((thresholds > 0) & (thresholds < 1)).all():
            raise UserError(f"{path}: every threshold must be a probability above 0 and below 1")
        thresholds = logit(thresholds)
    if not np.isfinite(thresholds).all():
        raise UserError(f"{path}: every threshold must be a finite number")
    return Decision(thresholds, chosen)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities [n, C] float32 from logits [n, C]. Large logits do not overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)


def choose_thresholds(
    config: DecisionConfig,
    truth: np.ndarray,
    logits: np.ndarray,
    tune: Callable[[np.ndarray, np.ndarray], float] = tune_global,
) -> Decision:
    """The decision that the config defines. Thresholds are tuned on held-out labels and logits, both [n, C].

    `tune` returns the one threshold for all categories, from labels and logits.
    """
    match config.threshold:
        case "fixed":
            thresholds, how = logit(config.value), f"fixed threshold {config.value:g}"
        case "tuned":
            thresholds, how = tune(truth, logits), "one threshold"
        case "tuned_per_category":
            thresholds, how = tune_per_category(truth, logits), "a threshold per category"
        case "calibrated":
            means = mean_logits(logits)
            above = np.where(is_asked(logits), logits - means, EXCLUDED)
            thresholds, how = means + tune(truth, above), "one threshold above each category's mean logit"
    if config.threshold != "fixed":
        how += f" tuned on {len(truth)} held-out arguments"
    return Decision(np.broadcast_to(np.asarray(thresholds, np.float64), logits.shape[1]), how)


def side_by_side(
    truth: np.ndarray, logits: np.ndarray, tune: Callable[[np.ndarray, np.ndarray], float] = tune_global
) -> dict[str, Decision]:
    """Four decisions about the logits of an untuned model, from held-out labels and logits [n, C].

    `raw` is at logit 0, where Yes is as probable as No. Models prefer one of the words, and for each category another
    one: `batch-calibrated` is at the mean logit of each category, for which no labels are needed (Zhou et al. 2024).
    """
    zero, means = np.zeros(logits.shape[1]), mean_logits(logits)
    return {
        "raw": Decision(zero, "logit 0"),
        "batch-calibrated": Decision(means, "mean held-out logit of each category"),
        "tuned": choose_thresholds(DecisionConfig(threshold="tuned"), truth, logits, tune),
        "batch-calibrated and tuned": choose_thresholds(DecisionConfig(threshold="calibrated"), truth, logits, tune),
    }


def mean_logits(logits: np.ndarray) -> np.ndarray:
    """The mean [C] of logits [n, C] over the arguments whose category was not excluded; 0 where there is none."""
    asked = is_asked(logits)
    return np.where(asked, logits, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(asked.sum(axis=0), 1)


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _short(probability: float) -> str:
    """Two decimals, or two significant digits where these would show 0 or 1."""
    return f"{probability:.2f}" if 0.005 <= probability < 0.995 else f"{probability:.2g}"
