"""The section `tuning`: which parameters train, and the default learning rate of each method."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, Text, check_owners

LEARNING_RATES: dict[str, tuple[float, str]] = {
    "full": (2e-5, "the study, arXiv 2403.09720"),
    "last_layers": (2e-5, "the study, arXiv 2403.09720"),
    "head": (1e-3, "own choice of jaxvalues, not searched"),
    "bitfit": (5e-4, "within the range of Ben Zaken et al. 2022, section 4"),
    "norms": (1e-3, "own choice of jaxvalues, not searched"),
    "prompt": (1e-3, "the study, arXiv 2403.09720"),
    "p_tuning": (1e-3, "the study's rate for prompts, arXiv 2403.09720"),
    "prefix": (5e-3, "within the range of P-tuning v2, Liu et al. 2022"),
    "lora": (5e-4, "RoBERTa-base in Hu et al. 2022, appendix D"),
    "ia3": (3e-3, "Liu et al. 2022, T-Few"),
    "none": (1e-3, "for a head or a soft verbalizer, if there is one: own choice of jaxvalues, not searched"),
}
"""Default learning rate of each tuning method, and its source."""

_PROMPTS, _VECTORS = ("prompt", "p_tuning"), ("prompt", "p_tuning", "prefix")
OWNERS: dict[str, tuple[str, ...]] = {
    "layers": ("last_layers",),
    "dropout_below": ("last_layers", "head"),
    "length": _VECTORS,
    "sides": _VECTORS,
    "init": _PROMPTS,
    "init_text": _PROMPTS,
    "init_top": _PROMPTS,
    "init_range": _VECTORS,
    "init_from": (*_VECTORS, "lora", "ia3"),
    "reparameterization": _VECTORS,
    "reparameterization_size": _VECTORS,
    "rank": ("lora",),
    "alpha": ("lora",),
    "lora_dropout": ("lora",),
    "targets": ("lora", "ia3"),
}
"""The methods that each key belongs to; the others belong to all."""


class TuningConfig(Section):
    """Which parameters train."""

    method: Literal[
        "full", "last_layers", "head", "bitfit", "norms", "prompt", "p_tuning", "prefix", "lora", "ia3", "none"
    ] = "full"
    """`full`: the whole network. `last_layers`: the top `layers` and what is above them. `head`: the new heads.
    `bitfit`: all biases and the new heads. `norms`: the scales and biases of all norms and the new heads (LN tuning).
    `prompt`: vectors before the input. `p_tuning`: the same vectors, computed by a small network. `prefix`: keys and
    values before those of every layer (prefix tuning, P-tuning v2). `lora`: low-rank changes of matrices. `ia3`: scales
    of activations. `none`: nothing (zero-shot)."""
    layers: int | None = Field(None, ge=1)
    """last_layers: number of top encoder layers that train, besides what is above them: the heads, also that of a
    masked language model, and GPT-2's final norm. An output matrix that is the word embeddings stays frozen."""
    dropout_below: bool = True
    """last_layers, head: dropout in the frozen layers. Without it, their output is the same in every epoch."""
    reuse_features: bool | Literal["auto"] = "auto"
    """Compute the output of the frozen layers once and keep it in host memory. `auto`: whenever it stays the same."""
    length: int = Field(20, ge=1)
    """prompt, p_tuning, prefix: number of vectors."""
    sides: tuple[Literal["encoder", "decoder", "cross"], ...] | None = None
    """prompt, p_tuning, prefix on T5: where they enter. `encoder` and `decoder`: before the input, or in
    self-attention; `cross`: prefixes in cross-attention. null: prompts enter the encoder, prefixes everywhere."""
    init: Literal["normal", "uniform", "vocabulary", "top_vocabulary", "text", "labels"] = "vocabulary"
    """prompt, p_tuning: initial vectors. `normal` and `uniform`: random. `vocabulary`: embeddings of random tokens;
    `top_vocabulary`: of random tokens among the first `init_top`; `text`: of the tokens of `init_text`; `labels`: of
    the names of the categories, each the mean of its tokens, and of random tokens from the 21st vector on."""
    init_text: Text | None = None
    """With `init: text`: the text."""
    init_range: float = Field(0.5, gt=0)
    """Standard deviation of random vectors (`normal`), or half the width of their range (`uniform`; Lester et al. 2021:
    0.5)."""
    init_top: int = Field(5000, ge=1)
    """With `init: top_vocabulary`: number of tokens to draw from."""
    init_from: Text | None = None
    """prompt, p_tuning, prefix, lora, ia3: folder of a run or of a PEFT adapter to start from."""
    reparameterization: Literal["none", "mlp", "lstm", "residual"] | None = None
    """Network that computes the vectors: `none` or `residual` for prompt (Razdaibiedina et al. 2023: each vector plus
    what a shared bottleneck makes of it), `mlp` or `lstm` for p_tuning, `none` or `mlp` for prefix. null: `mlp` for
    p_tuning, `none` for the others. It is not needed after training: exports hold the vectors alone."""
    reparameterization_size: int | None = Field(None, ge=1)
    """Width of that network, of `residual` its bottleneck. null: the width of the word embeddings."""
    rank: int = Field(8, ge=1)
    """lora: rank of each change."""
    alpha: float = Field(16.0, gt=0)
    """lora: each change is scaled by alpha / rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """lora: dropout of what enters each change, in training alone."""
    targets: tuple[Text, ...] | None = Field(None, min_length=1)
    """lora, ia3: names of the dense layers to change, such as [query, value]. null: PEFT's defaults for the
    architecture."""

    @model_validator(mode="after")
    def _keys_belong_to_methods(self) -> TuningConfig:
        if (self.method == "last_layers") != (self.layers is not None):
            raise ValueError("`layers` is required with method: last_layers and belongs to no other method")
        if self.method not in ("last_layers", "head") and not self.dropout_below:
            raise ValueError(f"`dropout_below` belongs to method: last_layers or head, not to {self.method}")
        if self.reuse_features is True and self.dropout_below:
            raise ValueError(
                "`reuse_features: true` needs method: last_layers or head with dropout_below: false; otherwise the "
                "output of the lower layers changes at every step"
            )
        owners = {key: methods for key, methods in OWNERS.items() if key not in ("layers", "dropout_below")}
        check_owners(self, owners, "method", self.method)
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError("`init_text` is required with init: text and belongs to no other init")
        kinds = {"p_tuning": ("mlp", "lstm"), "prefix": ("none", "mlp"), "prompt": ("none", "residual")}.get(
            self.method
        )
        if self.reparameterization is not None and self.reparameterization not in kinds:
            raise ValueError(
                f"`reparameterization` of method: {self.method} must be {' or '.join(kinds)}, not "
                f"{self.reparameterization}"
            )
        if self.sides is not None and self.method != "prefix" and "cross" in self.sides:
            raise ValueError("`sides: cross` belongs to method: prefix; a prompt enters the encoder or the decoder")
        return self
