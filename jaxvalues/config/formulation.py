"""The section `formulation`: how an argument becomes model input, and model output becomes logits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, Text, check_owners


class PoolingConfig(Section):
    """classify: how hidden states become the input of the classifier heads."""

    over: Literal["cls", "mean", "last"] = "cls"
    """Tokens to pool: `cls`, the first one; `mean`, the mean of all but padding; `last`, the last one before padding
    (for causal networks, whose first token attends to nothing else)."""
    layers: tuple[int, ...] = Field((-1,), min_length=1)
    """Hidden states to pool, numbered as in transformers' `hidden_states`: 0 the embeddings, k after layer k, -1 the
    last."""
    combine: Literal["concat", "mean"] = "concat"
    """How the vectors of several layers are combined."""


class VerbalizerConfig(Section):
    """masked_choice, answer: the words that answer a question."""

    yes: tuple[Text, ...] = Field(("Yes",), min_length=1)
    """Words for Yes. The probabilities of several words are added; a word of several tokens is scored token by
    token. For answer a word stands for all answers that begin with it, so one that begins with another adds nothing."""
    no: tuple[Text, ...] = Field(("No",), min_length=1)
    """Words for No, scored in the same way."""
    soft: bool = False
    """Train a vector for each of the two answers, which starts as the mean of its words (WARP, Hambardzumyan et al.
    2021)."""
    calibrate: bool = False
    """When predicting, subtract the logits of a content-free argument (Zhao et al. 2021)."""


class FormulationConfig(Section):
    """How an argument becomes model input, and model output becomes logits [B, C]."""

    kind: Literal["classify", "masked_choice", "answer", "open_answer"] = "classify"
    """`classify`: one pass and classifier heads. The others are question formulations, with one question per category.
    `masked_choice` (MBC): a masked language model fills in Yes or No. `answer` (BCA): T5 or GPT-2 answers Yes or No.
    `open_answer` (OA): T5 or GPT-2 answers freely, and synonyms of the category are looked for in the answer."""
    template: Text | None = None
    """Path of a text file, or name of a built-in template: `cls` and `joined` for classify, `masked_choice`, `answer`
    and `open_answer` for the kind of that name, `stance`, `stance_masked` and `stance_answer` for the stance. null:
    `cls`, or the one of the kind and task."""
    descriptions: Text | None = None
    """Description of each category: `name`, `values` (its level 1 values), `definition`, or the path of a TSV file.
    classify appends all 20 to its input (null: none); question formulations fill the slot of their template (null:
    `name`)."""
    heads: Literal["single", "multiple"] = "single"
    """classify: `single`, one linear layer with 20 outputs, or `multiple`, one classifier with its own dropout per
    category."""
    pooling: PoolingConfig = PoolingConfig()
    head_dropout: float = Field(0.1, ge=0, lt=1)
    """classify: dropout before the heads."""
    verbalizer: VerbalizerConfig = VerbalizerConfig()
    synonyms: Text | None = None
    """open_answer: path of a TSV file with the synonyms of each category. null: the built-in ones."""
    scoring: Literal["likelihood", "generation"] = "likelihood"
    """open_answer: `likelihood` scores the probability that the answer begins with a synonym; `generation` generates an
    answer and looks for synonyms. Training always uses the likelihood."""
    max_new_tokens: int = Field(16, ge=1)
    """open_answer with `scoring: generation`: longest answer in tokens."""

    @model_validator(mode="after")
    def _keys_belong_to_kinds(self) -> FormulationConfig:
        owners = dict.fromkeys(("heads", "pooling", "head_dropout"), ("classify",))
        owners |= {"verbalizer": ("masked_choice", "answer")}
        owners |= dict.fromkeys(("synonyms", "scoring", "max_new_tokens"), ("open_answer",))
        check_owners(self, owners, "kind", self.kind)
        return self

    @property
    def asks_questions(self) -> bool:
        """Whether this is a question formulation: one question per category, answered by a language model in words."""
        return self.kind != "classify"

    @property
    def generates(self) -> bool:
        """Whether predictions come from generated answers."""
        return self.kind == "open_answer" and self.scoring == "generation"

    def default_template(self, task: str) -> str:
        """The name of the built-in template for a task and this kind."""
        if task == "stance":
            return {"classify": "stance", "masked_choice": "stance_masked", "answer": "stance_answer"}[self.kind]
        return self.kind if self.asks_questions else "cls"
