"""One sentence that says what a run did: what trained, of which network, on how many arguments."""

from __future__ import annotations

from jaxvalues.config import Config

_NAMES = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa",
    "t5": "T5",
    "gpt2": "GPT-2",
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
    return f"Trained {_what(config)} {name} ({_parameters(trained)}) on {_arguments(arguments)}; {rest}."


def _what(config: Config) -> str:
    """The part of the network that trained, with the preposition that leads to its name."""
    tuning, extra = config.tuning, _new(config)
    match tuning.method:
        case "full":
            return "all of"
        case "last_layers":
            which = "the top layer" if tuning.layers == 1 else f"the top {tuning.layers} layers"
            return f"{which}{extra} of"
        case "head":
            return "the classifier on"
        case "bitfit":
            return f"the biases{extra} of"
        case "prompt":
            return f"{_vectors(tuning.length, 'soft token')}{extra} before the input of"
        case "p_tuning":
            return f"a network that makes {_vectors(tuning.length, 'soft token')}{extra} before the input of"
        case "prefix":
            return f"{_vectors(tuning.length, 'prefix vector')}{extra} in every layer of"
        case "lora":
            return f"LoRA of rank {tuning.rank}{extra} in"
        case "ia3":
            return f"IA3 scales{extra} in"
        case "none":
            return f"{extra.removeprefix(' and ')} of" if extra else "a part of"
    raise AssertionError(tuning.method)


def _new(config: Config) -> str:
    """What trains besides, whatever the method: a classifier, or the vectors of a soft verbalizer."""
    if not config.formulation.asks_questions:
        return " and a classifier"
    return " and the answer vectors" if config.formulation.verbalizer.soft else ""


def _vectors(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _parameters(number: int) -> str:
    return f"{number:,} parameter" if number == 1 else f"{number:,} parameters"


def _arguments(number: int) -> str:
    return f"{number:,} argument" if number == 1 else f"{number:,} arguments"
