"""The section `formulation`: how an argument becomes model input, and model output becomes logits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section, Text, check_owners

GENERATED = ("label_list", "chain_of_thought")
"""The kinds whose predictions always need generated text. Nothing trains in them."""


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
    variants: bool | None = None
    """Add the probabilities of a word with and without a space before it, and in small letters, where these are single
    tokens. null: in a chat."""
    calibrate: bool = False
    """When predicting, subtract the logits of a content-free argument (Zhao et al. 2021)."""


class ExamplesConfig(Section):
    """answer, label_list: training arguments with their answers, shown before the question (in-context learning).

    They are of other conclusions than the argument in question, and each of another. Examples that leave an argument
    too few tokens, or a prompt that an endpoint refuses as too long, are left out one by one; the run counts them.
    """

    count: int = Field(4, ge=1)
    """Number of examples."""
    choose: Literal["seed", "balanced", "nearest"] = "balanced"
    """`seed`: drawn at random. `balanced`: as `seed`, with as many answers Yes as No. `nearest`: those that resemble
    the argument most (cosine), the nearest last; Yes and No in turn."""
    encoder: Text | None = None
    """nearest: folder or hub name of an encoder, such as `sentence-transformers/all-MiniLM-L6-v2`, in whose embedding
    space arguments are compared: mean of its last hidden states. null: by their words (TF-IDF)."""
    seed: int | None = Field(None, ge=0, lt=2**32)
    """Seed of the examples, their order and the categories that they ask about. null: the `seed` of the run."""

    @model_validator(mode="after")
    def _encoder_compares(self) -> ExamplesConfig:
        if self.encoder is not None and self.choose != "nearest":
            raise ValueError(f"`encoder` belongs to choose: nearest, and choose is {self.choose}")
        return self


class ShortlistConfig(Section):
    """answer, chain_of_thought: a finished run proposes categories, and the language model decides among these."""

    run: Text
    """Folder of the finished run, which must have predicted the same splits."""
    count: int | None = Field(None, ge=1, le=19)
    """The number of its most probable categories of an argument. null: those that it decided for."""


class GenerationConfig(Section):
    """label_list, chain_of_thought: how the model's text is generated, and what a text without an answer means."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Longest text in tokens. null: 64 for label_list, 256 for chain_of_thought."""
    samples: int = Field(1, ge=1)
    """Texts for each argument, over which logits are averaged (self-consistency, Wang et al. 2023)."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the most probable token each time, more draws one. Several samples need more than 0."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw among the most probable tokens that have this probability together (nucleus sampling)."""
    unparsed: Literal["no", "undecided"] = "no"
    """label_list: what a text that names no category says about each: `no` (logit -1), or nothing (logit 0)."""

    @model_validator(mode="after")
    def _samples_differ(self) -> GenerationConfig:
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same: give a temperature above 0")
        return self


class FormulationConfig(Section):
    """How an argument becomes model input, and model output becomes logits [B, C]."""

    kind: Literal["classify", "masked_choice", "answer", "open_answer", "label_list", "chain_of_thought"] = "classify"
    """`classify`: one pass and classifier heads. The others are question formulations, answered by a language model.
    Three ask one question per category. `masked_choice` (MBC): a masked language model fills in Yes or No. `answer`
    (BCA): a generative model answers Yes or No. `open_answer` (OA): it answers freely, and the answer is searched for
    synonyms of the category. `label_list`: one question about all categories; the answer is searched for their names.
    `chain_of_thought` (CoT): the model first says which values it sees, then answers Yes or No for each category. The
    last two train nothing."""
    template: Text | None = None
    """Path of a text file, or name of a built-in template: `cls` and `joined` for classify, `stance`, `stance_masked`
    and `stance_answer` for the stance, `answer_chat` for answer in a chat, and one with the name of each other kind.
    null: the one of the kind and task."""
    chat: bool = False
    """Causal models: write prompts with the chat template of the tokenizer, as instruction-tuned models expect. A
    tokenizer with a chat template may belong to a base model too, so this is never guessed. With `model.endpoint`,
    prompts are always a chat."""
    system: Text | None = None
    """chat: the system message. null: none, or the template's own."""
    stem: Text | None = None
    """chat: what the model's answer is made to begin with, such as "The answer is"."""
    examples: ExamplesConfig | None = None
    shortlist: ShortlistConfig | None = None
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
    generation: GenerationConfig = GenerationConfig()

    @model_validator(mode="after")
    def _keys_belong_to_kinds(self) -> FormulationConfig:
        written = ("answer", "open_answer", "label_list", "chain_of_thought")
        owners = dict.fromkeys(("heads", "pooling", "head_dropout"), ("classify",))
        owners |= {"verbalizer": ("masked_choice", "answer", "chain_of_thought"), "scoring": ("open_answer",)}
        owners |= dict.fromkeys(("chat", "system", "stem"), written)
        owners |= {"examples": ("answer", "label_list"), "shortlist": ("answer", "chain_of_thought")}
        owners |= {"synonyms": ("open_answer", "chain_of_thought"), "max_new_tokens": ("open_answer",)}
        owners |= {"generation": GENERATED}
        check_owners(self, owners, "kind", self.kind)
        if not self.chat and (key := next((key for key in ("system", "stem") if getattr(self, key)), None)):
            raise ValueError(f"`{key}` belongs to a chat: set chat: true, or write it into the template")
        if self.kind == "chain_of_thought" and self.verbalizer.soft:
            raise ValueError("verbalizer.soft trains vectors, and chain_of_thought trains nothing")
        if self.kind == "chain_of_thought" and self.verbalizer.calibrate:
            raise ValueError(
                "verbalizer.calibrate asks about an argument without content, which chain_of_thought cannot"
            )
        return self

    @property
    def asks_questions(self) -> bool:
        """Whether this is a question formulation, answered by a language model in words."""
        return self.kind != "classify"

    @property
    def generates(self) -> bool:
        """Whether predictions come from generated answers."""
        return self.kind in GENERATED or (self.kind == "open_answer" and self.scoring == "generation")

    @property
    def longest_answer(self) -> int:
        """The longest generated text in tokens."""
        defaults = {"label_list": 64, "chain_of_thought": 256}
        return self.generation.max_new_tokens or defaults.get(self.kind, self.max_new_tokens)

    def default_template(self, task: str) -> str:
        """The name of the built-in template for a task and this kind."""
        if task == "stance":
            return {"classify": "stance", "masked_choice": "stance_masked", "answer": "stance_answer"}[self.kind]
        if self.kind == "answer" and self.chat:
            return "answer_chat"
        return self.kind if self.asks_questions else "cls"
