"""Writes golden/*.npz, what torch gives on the tiny cases: python tests/models/make_golden.py (needs torch)."""

from __future__ import annotations

from pathlib import Path

import bert_reference
import deberta_reference
import gpt2_reference
import llama_reference
import mpnet_reference
import numpy as np
import t5_reference

GOLDEN = Path(__file__).parent / "golden"
STRIDE = 5  # every fifth entry of each gradient is kept: prime to the widths, so every row and column is seen


def main() -> None:
    for reference in (bert_reference, deberta_reference, mpnet_reference, t5_reference):
        for name, config in reference.CONFIGS.items():
            results = reference.torch_results(config, reference.tensors(config), reference.batch(config))
            grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
            np.savez_compressed(GOLDEN / f"{name}.npz", **results, **grads)
    results = gpt2_reference.torch_results(gpt2_reference.CONFIG, gpt2_reference.tensors(), gpt2_reference.batch())
    grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
    np.savez_compressed(GOLDEN / "gpt2.npz", **results, **grads)
    for name in llama_reference.STORED:
        config = llama_reference.CONFIGS[name]
        results = llama_reference.torch_results(config, llama_reference.tensors(config), llama_reference.batch())
        grads = {f"grad:{key}": grad.ravel()[::STRIDE] for key, grad in results.pop("grads").items()}
        np.savez_compressed(GOLDEN / f"{name}.npz", **results, **grads)
    logits = {}
    for name, config in deberta_reference.MASKED_LM.items():
        inputs = deberta_reference.batch(config)
        logits[name] = deberta_reference.masked_lm_logits(config, deberta_reference.masked_lm_tensors(config), inputs)[
            0
        ]
    np.savez_compressed(GOLDEN / "mlm.npz", **{name: array[:, :1] for name, array in logits.items()})


if __name__ == "__main__":
    main()
