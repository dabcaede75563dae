"""The section `loss`: what training minimises."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, check_owners


class ContrastiveConfig(Section):
    """Contrastive learning over the global batch: arguments that share categories are drawn together."""

    use: Literal["joint", "pretraining"] = "joint"
    """`joint`: a term added to the loss. `pretraining`: a stage before training, which minimises this term alone."""
    weight: float = Field(0.1, ge=0)
    """joint: weight of the added term."""
    epochs: int = Field(1, ge=1)
    """pretraining: epochs of that stage. They come before the epochs of `training`."""
    temperature: float = Field(0.05, gt=0)
    """Cosine similarities are divided by it."""
    embedding: Literal["pooled", "projected"] = "pooled"
    """Vectors to compare. `pooled`: the input of the classifier heads. `projected`: its projection by a small network
    (SimCLR)."""
    projection_size: int = Field(128, ge=1)
    """projected: size of the projection."""
    positives: Literal["labels", "views", "both"] = "labels"
    """Pairs to draw together. `labels`: arguments that share categories. `views`: two passes of one argument with
    different dropout (SimCSE). `both`: both."""


class LossConfig(Section):
    """What training minimises. A key that names kinds belongs to these kinds only."""

    kind: Literal["bce", "class_balanced", "focal", "asymmetric", "class_balanced_negative_tolerant"] = "bce"
    """Binary cross-entropy (`bce`), or one of its variants for rare categories."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """All kinds: targets move towards 1/2 by this share."""
    beta: float = Field(0.999, ge=0, lt=1)
    """class_balanced, class_balanced_negative_tolerant: beyond about 1/(1 - beta) positive examples of a category, more
    examples change its weight little."""
    gamma: float = Field(2.0, ge=0)
    """focal: focusing exponent. The higher it is, the less easy examples count."""
    gamma_positive: float = Field(1.0, ge=0)
    """asymmetric: focusing exponent of positives."""
    gamma_negative: float = Field(4.0, ge=0)
    """asymmetric: focusing exponent of negatives."""
    margin: float = Field(0.05, ge=0, lt=1)
    """asymmetric: negatives with a probability below this margin do not count."""
    negative_scale: float = Field(2.0, gt=0)
    """class_balanced_negative_tolerant: how much negatives are tolerated; 1 means not at all."""
    prior_shift: float = Field(0.05, ge=0)
    """class_balanced_negative_tolerant: how far logits shift towards the log-odds of the categories."""
    contrastive: ContrastiveConfig | None = None
    """Contrastive learning, besides the loss above. null: none."""

    @model_validator(mode="after")
    def _keys_belong_to_kinds(self) -> LossConfig:
        balanced = ("class_balanced", "class_balanced_negative_tolerant")
        owners = {"beta": balanced, "gamma": ("focal",), "negative_scale": balanced[1:], "prior_shift": balanced[1:]}
        owners |= dict.fromkeys(("gamma_positive", "gamma_negative", "margin"), ("asymmetric",))
        check_owners(self, owners, "kind", self.kind)
        return self

    @property
    def has_views(self) -> bool:
        """Whether each argument passes twice, with different dropout, where the contrastive term is computed."""
        return self.contrastive is not None and self.contrastive.positives != "labels"

    @property
    def pretraining_epochs(self) -> int:
        """The epochs of contrastive learning before those of `training`."""
        one = self.contrastive
        return one.epochs if one is not None and one.use == "pretraining" else 0
