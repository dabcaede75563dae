"""The section `tuning`: what trains, and how fast unless the config says so."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, check_owners

LEARNING_RATES: dict[str, tuple[float, str]] = {
    "full": (2e-5, "the study, arXiv 2403.09720"),
    "last_layers": (2e-5, "the study, arXiv 2403.09720"),
    "head": (1e-3, "jaxvalues' own choice, not searched"),
    "bitfit": (5e-4, "within the range of Ben Zaken et al. 2022, section 4"),
    "prompt": (1e-3, "the study, arXiv 2403.09720"),
    "p_tuning": (1e-3, "the study's for prompts, arXiv 2403.09720"),
    "prefix": (5e-3, "within the range of P-tuning v2, Liu et al. 2022"),
    "lora": (5e-4, "RoBERTa-base in Hu et al. 2022, appendix D"),
    "ia3": (3e-3, "Liu et al. 2022, T-Few"),
    "none": (1e-3, "of a soft verbalizer or a head, if there is one: jaxvalues' own choice, not searched"),
}
"""Each tuning method's default learning rate, and where it is from."""


class TuningConfig(Section):
    """What trains."""

    method: Literal["full", "last_layers", "head", "bitfit", "prompt", "p_tuning", "prefix", "lora", "ia3", "none"] = (
        "full"
    )
    """The whole network; the top `layers` and the heads; the heads alone; all biases and the heads (BitFit); vectors
    before the input (prompt tuning), the same made by a small network (P-tuning); keys and values before those of every
    layer (prefix tuning, P-tuning v2); low-rank changes of matrices (LoRA); scales of activations (IA3); nothing
    (zero-shot)."""
    layers: int | None = Field(None, ge=1)
    """For last_layers: how many of the top encoder layers train, besides the heads."""
    dropout_below: bool = True
    """Dropout in the frozen layers below those that train; without it their output is the same in every epoch."""
    reuse_features: bool | Literal["auto"] = "auto"
    """Compute the output of the frozen layers once and keep it in host memory. auto: whenever it stays the same."""
    length: int = Field(20, ge=1)
    """prompt, p_tuning, prefix: how many vectors."""
    sides: tuple[Literal["encoder", "decoder", "cross"], ...] | None = None
    """T5: where prompts (encoder, decoder) or prefixes (encoder and decoder self-attention, cross-attention) enter;
    null: prompts before the encoder's input, prefixes everywhere."""
    init: Literal["normal", "uniform", "vocabulary", "top_vocabulary", "text", "labels"] = "vocabulary"
    """prompt, p_tuning: where the vectors start: random, as words drawn from the vocabulary or from its `init_top`
    first, as the tokens of `init_text`, or as the names of the categories."""
    init_text: str | None = None
    init_range: float = Field(0.5, gt=0)
    """Of random vectors: the standard deviation (normal), or half the width (uniform; Lester et al. 2021: 0.5)."""
    init_top: int = Field(5000, ge=1)
    init_from: str | None = None
    """Start from what another run trained (its folder), or from an adapter that PEFT wrote (its folder)."""
    reparameterization: Literal["none", "mlp", "lstm"] | None = None
    """p_tuning: mlp or lstm; prefix: none or mlp; null: mlp for p_tuning, none for prefix."""
    reparameterization_size: int | None = Field(None, ge=1)
    """Width of that network; null: the width of the word vectors."""
    rank: int = Field(8, ge=1)
    """lora: rank of the change of a matrix."""
    alpha: float = Field(16.0, gt=0)
    """lora: the change is scaled by alpha / rank."""
    targets: tuple[str, ...] | None = Field(None, min_length=1)
    """lora, ia3: names of the dense layers that change, such as [query, value]; null: PEFT's for the architecture."""

    @model_validator(mode="after")
    def _keys_belong_to_methods(self) -> TuningConfig:
        if (self.method == "last_layers") != (self.layers is not None):
            raise ValueError("`layers` must be given with method: last_layers, and only with it")
        if self.method not in ("last_layers", "head") and not self.dropout_below:
            raise ValueError(f"with method: {self.method} no layer is below those that train: leave out dropout_below")
        if self.reuse_features is True and self.dropout_below:
            raise ValueError(
                "reuse_features needs a method that freezes the lower layers (last_layers, head) and "
                "dropout_below: false; otherwise their output is another one at every step"
            )
        prompts, vectors = ("prompt", "p_tuning"), ("prompt", "p_tuning", "prefix")
        owners = {
            "length": vectors,
            "sides": vectors,
            "rank": ("lora",),
            "alpha": ("lora",),
            "targets": ("lora", "ia3"),
        }
        owners |= {"init": prompts, "init_text": prompts, "init_top": prompts, "init_range": vectors}
        owners |= dict.fromkeys(("reparameterization", "reparameterization_size"), ("p_tuning", "prefix"))
        owners |= {"init_from": (*vectors, "lora", "ia3")}
        check_owners(self, owners, "method", self.method)
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError("`init_text` must be given with init: text, and only with it")
        kinds = {"p_tuning": ("mlp", "lstm"), "prefix": ("none", "mlp")}.get(self.method)
        if self.reparameterization is not None and self.reparameterization not in kinds:
            raise ValueError(
                f"reparameterization of {self.method} is {' or '.join(kinds)}, not {self.reparameterization}"
            )
        if self.sides is not None and self.method != "prefix" and "cross" in self.sides:
            raise ValueError("`sides: cross` belongs to method: prefix; a prompt enters the encoder or the decoder")
        return self
