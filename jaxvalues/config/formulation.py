"""The section `formulation`: how an argument becomes model input, and model output becomes logits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, check_owners


class PoolingConfig(Section):
    """How token states become the vector that the heads see."""

    over: Literal["cls", "mean", "last"] = "cls"
    """First token, mean over real tokens, or the last real token (for causal networks, whose first sees nothing)."""
    layers: tuple[int, ...] = Field((-1,), min_length=1)
    """Hidden states to pool, as in HF `hidden_states`: 0 = embeddings, k = after layer k, -1 = last."""
    combine: Literal["concat", "mean"] = "concat"
    """How several layers are combined."""


class VerbalizerConfig(Section):
    """The words that answer a question (masked_choice, answer)."""

    yes: tuple[str, ...] = Field(("Yes",), min_length=1)
    no: tuple[str, ...] = Field(("No",), min_length=1)
    """Several words of one class add their probabilities up; words of several tokens are scored token by token."""
    soft: bool = False
    """Learn a vector for each of the two classes, which starts as the mean of its words (WARP, Hambardzumyan 2021)."""
    calibrate: bool = False
    """Subtract what the model answers about an argument without content (Zhao et al. 2021), whenever it predicts."""


class FormulationConfig(Section):
    """How an argument becomes model input, and model output becomes logits [B, C]."""

    kind: Literal["classify", "masked_choice", "answer", "open_answer"] = "classify"
    """`classify`: one pass, a classifier head. One question for each category: `masked_choice` reads Yes or No at the
    mask of a masked language model (MBC); `answer` reads what T5 or GPT-2 would answer, Yes or No (BCA); `open_answer`
    looks for words of the category in what they would say (OA)."""
    template: str | None = None
    """Name of a template that comes with jaxvalues (classify: `cls`, `joined`; the others: their own kind's; stance:
    `stance`, `stance_masked`, `stance_answer`) or path of a text file; null: `cls`, the kind's own, or the stance's."""
    descriptions: str | None = None
    """What the 20 categories mean: `name`, `values` (their level 1 values), `definition`, or path of a file. classify
    appends all of them to its input; the others fill the slot of their template (null: `name`)."""
    heads: Literal["single", "multiple"] = "single"
    """classify: one linear layer with 20 outputs, or one classifier (with its own dropout) per category."""
    pooling: PoolingConfig = PoolingConfig()
    head_dropout: float = Field(0.1, ge=0, lt=1)
    verbalizer: VerbalizerConfig = VerbalizerConfig()
    synonyms: str | None = None
    """open_answer: path of a table of words for each category; null: those that come with jaxvalues."""
    scoring: Literal["likelihood", "generation"] = "likelihood"
    """open_answer predicts by the probability that the answer begins with one of the words, or generates an answer and
    looks for them. Training always uses the likelihood."""
    max_new_tokens: int = Field(16, ge=1)
    """open_answer with generation: longest answer in tokens."""

    @model_validator(mode="after")
    def _keys_belong_to_kinds(self) -> FormulationConfig:
        owners = dict.fromkeys(("heads", "pooling", "head_dropout"), ("classify",))
        owners |= {"verbalizer": ("masked_choice", "answer")}
        owners |= dict.fromkeys(("synonyms", "scoring", "max_new_tokens"), ("open_answer",))
        check_owners(self, owners, "kind", self.kind)
        return self

    @property
    def asks_questions(self) -> bool:
        """Whether it asks one question for each category, which a language model answers in words."""
        return self.kind != "classify"

    @property
    def generates(self) -> bool:
        """Whether it predicts from answers that the model generates."""
        return self.kind == "open_answer" and self.scoring == "generation"

    def default_template(self, task: str) -> str:
        """The name of the template where none is given, of a task and this kind."""
        if task == "stance":
            return {"classify": "stance", "masked_choice": "stance_masked", "answer": "stance_answer"}[self.kind]
        return self.kind if self.asks_questions else "cls"
