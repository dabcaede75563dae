"""Writes golden/*.npz, what torch gives on the tiny cases: python tests/models/make_golden.py (needs torch)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bert_reference import CONFIGS, batch, tensors, torch_results

GOLDEN = Path(__file__).parent / "golden"
STRIDE = 5  # every fifth entry of each gradient is kept: prime to the widths, so every row and column is seen


def main() -> None:
    for name, config in CONFIGS.items():
        results = torch_results(config, tensors(config), batch(config))
        grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
        np.savez_compressed(GOLDEN / f"{name}.npz", **results, **grads)


if __name__ == "__main__":
    main()
