"""(IA)³ (Liu et al., 2022, "Few-Shot Parameter-Efficient Fine-Tuning"): trained scales of keys, values and feed-forward
activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvalues.models.model_types import GEMMA, LLAMA, QWEN
from jaxvalues.tuning.method import AdditiveMethod, Bound, Params
from jaxvalues.tuning.targets import BERT_LIKE, default_targets, target_layers

# PEFT's defaults (TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING). PEFT has none for xlm-roberta and mpnet, which
# take those of roberta. PEFT's "output.dense" matches both the attention's `output` and the feed-forward's `down`.
DEFAULTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*BERT_LIKE, "deberta-v2"), ("key", "value", "output", "down")),
    "deberta": ("in_proj", "output", "down"),
    "gpt2": ("qkv", "down"),
    "t5": ("key", "value", "down"),
    **dict.fromkeys(("llama", "mistral"), ("key", "value", "down")),
    **dict.fromkeys((*QWEN, *GEMMA), ("query", "value", "down")),
}
# PEFT's defaults (TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING): the layers whose input is scaled.
INPUT_SCALED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*BERT_LIKE, "deberta-v2", "deberta"), ("output", "down")),
    "gpt2": ("down",),
    "t5": ("down",),
    **dict.fromkeys(LLAMA, ("down",)),
}


@dataclass(frozen=True)
class IA3(AdditiveMethod):
    """(IA)³: scales the output of the dense layers named in `targets` (None: `DEFAULTS`).

    For the layers in `INPUT_SCALED` it scales the input. The dense layer scales its input or output; `merge` multiplies
    the rows of the kernel instead, or its columns and the bias, for an export.

    The trainable tree is {"ia3": {path of the layer: {"scale": [features]}}} besides the new parameters, with a leading
    axis in a stacked segment. A layer has `out` parameters, or `in` if its input is scaled. All scales start at 1, so
    the initial network is unchanged.
    """

    key: ClassVar[str] = "ia3"
    targets: tuple[str, ...] | None = None

    def init_added(self, rng: jax.Array, params: Params) -> Params:
        names = self.targets or default_targets(self.target.model_type, DEFAULTS, "ia3")
        added = {}
        for path, kernel in target_layers(params, names).items():
            *stack, fan_in, fan_out = kernel.shape
            added[f"{path}/scale"] = jnp.ones((*stack, fan_in if self._scales_input(path) else fan_out))
        return unflatten_dict(added, sep="/")

    def bind_added(self, params: Params, added: Params) -> Bound:
        flat = flatten_dict(params, sep="/")
        for name, scale in flatten_dict(added, sep="/").items():
            path = name.removesuffix("/scale")
            flat[f"{path}/{'input' if self._scales_input(path) else 'output'}_scale"] = scale
        return Bound(unflatten_dict(flat, sep="/"))

    def _scales_input(self, path: str) -> bool:
        return path.rsplit("/", 1)[-1] in INPUT_SCALED.get(self.target.model_type, ())
