"""One sentence that says what a run did: what trained, of which network, on how many arguments."""

from __future__ import annotations

from jaxvalues.config import Config
from jaxvalues.errors import counted

_NAMES = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "mpnet": "MPNet",
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa",
    "t5": "T5",
    "gpt2": "GPT-2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen 2",
    "qwen3": "Qwen 3",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
}


def summary(config: Config, model_type: str, trained: int, frozen: int, arguments: int) -> str:
    """What a run did, in one sentence.

    `model_type` is that of the network's Hugging Face config, `trained` and `frozen` count parameters, and `arguments`
    counts those of the training part.
    """
    name = f"{_NAMES.get(model_type, model_type)} of random weights" if config.model.config is not None else ""
    name = name or _NAMES.get(model_type, model_type)
    if not trained:
        return f"Asked {name} as it is ({frozen:,} parameters): nothing was trained."
    rest = f"the other {frozen:,} stayed frozen" if frozen else "none of its parameters stayed frozen"
    return (
        f"Trained {_what(config)} {name} ({counted(trained, 'parameter')}) on {counted(arguments, 'argument')}; {rest}."
    )


def _what(config: Config) -> str:
    """The part of the network that trained, with the preposition that leads to its name."""
    tuning, extra = config.tuning, _new(config)
    tokens, vectors = counted(tuning.length, "soft token"), counted(tuning.length, "prefix vector")
    layers = "the top layer" if tuning.layers == 1 else f"the top {tuning.layers} layers"
    if config.formulation.asks_questions:  # what a language model has above its layers
        above = "the head" if config.formulation.kind == "masked_choice" else "the final norm"
        layers += f", {above}" if extra else f" and {above}"
    return {
        "full": "all of",
        "last_layers": f"{layers}{extra} of",
        "head": "the classifier on",
        "bitfit": f"the biases{extra} of",
        "norms": f"the norms{extra} of",
        "prompt": f"{tokens}{extra} before the input of",
        "p_tuning": f"a network that makes {tokens}{extra} before the input of",
        "prefix": f"{vectors}{extra} in every layer of",
        "lora": f"LoRA of rank {tuning.rank}{extra} in",
        "ia3": f"IA3 scales{extra} in",
        "none": f"{extra.removeprefix(' and ')} of",
    }[tuning.method]


def _new(config: Config) -> str:
    """What trains besides, whatever the method: a classifier, or the vectors of a soft verbalizer."""
    if not config.formulation.asks_questions:
        return " and a classifier"
    return " and the answer vectors" if config.formulation.verbalizer.soft else ""
