"""Writes golden/*.npz, what torch gives on the tiny cases: python tests/models/make_golden.py (needs torch)."""

from __future__ import annotations

from pathlib import Path

import deberta_reference
import gpt2_reference
import numpy as np
from bert_reference import CONFIGS, batch, tensors, torch_results

GOLDEN = Path(__file__).parent / "golden"
STRIDE = 5  # every fifth entry of each gradient is kept: prime to the widths, so every row and column is seen


def main() -> None:
    for name, config in CONFIGS.items():
        results = torch_results(config, tensors(config), batch(config))
        grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
        np.savez_compressed(GOLDEN / f"{name}.npz", **results, **grads)
    for name, config in deberta_reference.CONFIGS.items():
        weights, inputs = deberta_reference.tensors(config), deberta_reference.batch(config)
        results = deberta_reference.torch_results(config, weights, inputs)
        grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
        np.savez_compressed(GOLDEN / f"{name}.npz", **results, **grads)
    results = gpt2_reference.torch_results(gpt2_reference.CONFIG, gpt2_reference.tensors(), gpt2_reference.batch())
    grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
    np.savez_compressed(GOLDEN / "gpt2.npz", **results, **grads)
    logits = {}
    for name, config in deberta_reference.MASKED_LM.items():
        inputs = deberta_reference.batch(config)
        logits[name] = deberta_reference.masked_lm_logits(config, deberta_reference.masked_lm_tensors(config), inputs)[
            0
        ]
    np.savez_compressed(GOLDEN / "mlm.npz", **{name: array[:, :1] for name, array in logits.items()})


if __name__ == "__main__":
    main()
