"""Classifiers as checkpoints of transformers' AutoModelForSequenceClassification, and back.

Transformers has a dense layer and an activation between the first token's hidden state x and the linear classifier W;
`Classifier` has not. They are written so that they change nothing:

- DeBERTa's config names the activation. With "linear" and the identity as dense layer, x stays x.
- BERT's, RoBERTa's and MPNet's is tanh. The dense layer is written as ε·I and the classifier as W / ε. ε is a power of
  two, so neither rounds, and so small that y = ε·x lies within ±2⁻¹² for every input: x leaves a layer norm with scale
  γ and bias β, hence |x_d| ≤ |γ_d|·√D + |β_d|. There tanh(y) = y·(1 − y²/3 + …) differs from y by less than |y|·2⁻²⁵,
  half the distance to the next float32: rounded, it *is* y, in bfloat16 too. (float16 is coarse near 0.)
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvalues.errors import UserError
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, to_params, to_tensors
from jaxvalues.models.checkpoints.weights import open_tensors, save_tensors
from jaxvalues.models.heads.classifier import Classifier
from jaxvalues.models.layers.layout import ungroup
from jaxvalues.models.loading import abstract_params, read_config

TANH_IS_IDENTITY = 2.0**-12  # within ± this, in float32


class Naming(NamedTuple):
    """What transformers calls a classifier's class and its tensors."""

    architecture: str
    encoder: str  # what stands before the encoder's names
    dense: str
    classifier: str
    has_tanh: bool  # or else an activation that the config names


_BERT = Naming("BertForSequenceClassification", "bert.", "bert.pooler.dense", "classifier", True)
_ROBERTA = Naming("RobertaForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj", True)
_DEBERTA = Naming("DebertaForSequenceClassification", "deberta.", "pooler.dense", "classifier", False)
NAMINGS: dict[str, Naming] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA._replace(architecture="XLMRobertaForSequenceClassification"),
    "mpnet": Naming("MPNetForSequenceClassification", "mpnet.", "classifier.dense", "classifier.out_proj", True),
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA._replace(architecture="DebertaV2ForSequenceClassification"),
}


def save_classifier(folder: Path, config: Mapping[str, Any], module: Classifier, params: Any) -> None:
    """Write a classifier over the first token of the last layer: config.json (`config` and the head's settings) and
    model.safetensors. `params` are {"encoder", "head"}; multiple heads are written as one matrix."""
    model_type = config["model_type"]
    params = {"encoder": params["encoder"], "head": _dense_and_out(model_type, module, params)}
    save_tensors(folder, to_tensors(params, _table(model_type)))
    content = {**config, "architectures": [NAMINGS[model_type].architecture], "dtype": "float32"}
    content |= head_settings(model_type, module)
    (folder / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def head_modules(model_type: str, module: Classifier, params: Any) -> dict[str, dict[str, np.ndarray]]:
    """The head of a classifier over the first token of the last layer, in the modules that transformers has around the
    encoder: {module: {name of a tensor in it: array}}. `params` are as in `save_classifier`."""
    naming = NAMINGS[model_type]
    tensors = to_tensors({"head": _dense_and_out(model_type, module, params)}, Table(_head_rules(naming)))
    return {
        at: {name.removeprefix(f"{at}."): tensor for name, tensor in tensors.items() if name.startswith(f"{at}.")}
        for at in head_module_names(model_type)
    }


def head_from_modules(model_type: str, module: Classifier, tensors: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The head of `Classifier`, {"kernel", "bias"}, of the tensors around an encoder; the inverse of `head_modules`.

    `tensors` are named as in transformers' classifiers. None where they are no head of this `module`: of other labels,
    on other hidden states, or with a dense layer and an activation that were trained. GPT-2's `score` has neither.
    """
    encoder, is_causal = module.encoder.config, model_type not in NAMINGS
    last = tuple(module.layers) in ((-1,), (encoder.num_layers,))
    if not last or module.pooling != ("last" if is_causal else "cls"):
        return None
    if is_causal:
        kernel, bias = np.asarray(tensors["score.weight"]).T, np.zeros(module.num_labels, np.float32)
        epsilon = np.float32(1)
    else:
        naming = NAMINGS[model_type]
        names = [f"{layer}.{leaf}" for layer in (naming.dense, naming.classifier) for leaf in ("weight", "bias")]
        if any(name not in tensors for name in names):
            return None
        between, offset, out, bias = (np.asarray(tensors[name]) for name in names)
        epsilon, kernel = between.flat[0], out.T
        if np.any(offset) or not epsilon > 0 or not np.array_equal(between, _scaled_identity(epsilon, len(between))):
            return None
    if kernel.shape != (encoder.hidden_size, module.num_labels) or bias.shape != (module.num_labels,):
        return None
    return {"kernel": np.ascontiguousarray(_turn(module, kernel * epsilon)), "bias": bias}


def head_module_names(model_type: str) -> tuple[str, ...]:
    """The modules that transformers has around an encoder in a classifier."""
    if model_type not in NAMINGS:
        return ("score",)
    naming = NAMINGS[model_type]
    return tuple(dict.fromkeys((naming.dense.removesuffix(".dense"), naming.classifier.removesuffix(".out_proj"))))


def load_classifier(folder: Path, module: Classifier) -> dict[str, Any]:
    """The parameters {"encoder", "head"} of a folder that `save_classifier` wrote, bit for bit.

    Raises `UserError` for tensors that are missing, unexpected or misshapen, and for a dense layer that was trained
    further, which `Classifier` cannot express.
    """
    config, encoder = read_config(folder), module.encoder.config
    naming, size, labels = NAMINGS[config["model_type"]], encoder.hidden_size, module.num_labels
    shapes = {"dense": {"kernel": (size, size), "bias": (size,)}, "out": {"kernel": (size, labels), "bias": (labels,)}}
    head = {
        layer: {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in leaves.items()}
        for layer, leaves in shapes.items()
    }
    expected = {"encoder": abstract_params(module)["encoder"], "head": head}
    params = to_params(open_tensors(folder), _table(config["model_type"]), expected, source=str(folder))
    between, out = params["head"]["dense"], params["head"]["out"]
    epsilon = _epsilon(naming, params["encoder"], encoder.num_layers)
    changed = np.any(between["bias"]) or not np.array_equal(between["kernel"], _scaled_identity(epsilon, size))
    if changed or not (naming.has_tanh or config.get("pooler_hidden_act") == "linear"):
        raise UserError(
            f"{folder}: {naming.dense} is not as jaxvalues wrote it, so this model was trained further and is no "
            "longer a run of jaxvalues; model.path can train from its encoder"
        )
    return {
        "encoder": params["encoder"],
        "head": {"kernel": _turn(module, np.asarray(out["kernel"]) * epsilon), "bias": out["bias"]},
    }


def _table(model_type: str) -> Table:
    """The names of a whole classifier, exactly as transformers writes them."""
    naming = NAMINGS[model_type]
    encoder = (
        dataclasses.replace(rule, hf=naming.encoder + rule.hf, path=f"encoder/{rule.path}")
        for rule in ARCHITECTURES[model_type].table.rules
    )
    return Table((*encoder, *_head_rules(naming)))


def _head_rules(naming: Naming) -> tuple[Rule, ...]:
    return *dense(naming.dense, "head/dense"), *dense(naming.classifier, "head/out")


def _dense_and_out(model_type: str, module: Classifier, params: Any) -> dict[str, Any]:
    """Our head as the two layers that transformers has."""
    encoder = module.encoder.config
    epsilon = _epsilon(NAMINGS[model_type], params["encoder"], encoder.num_layers)
    kernel = np.asarray(params["head"]["kernel"], np.float32)
    return {
        "dense": {"kernel": _scaled_identity(epsilon, encoder.hidden_size), "bias": np.zeros(encoder.hidden_size)},
        "out": {"kernel": _turn(module, kernel) / epsilon, "bias": params["head"]["bias"]},
    }


def head_settings(model_type: str, module: Classifier) -> dict[str, Any]:
    """The config's keys of the head. They give it our dropout: once, on the input of the classifier.

    RoBERTa drops before the dense layer and after it; two independent masks that keep √(1 − rate) each are one that
    keeps 1 − rate. MPNet's head has no rate of its own: it drops twice at that of its layers. (With multiple heads
    each category had a mask of its own, which transformers has not.)
    """
    rate = module.dropout_rate
    match model_type:
        case "bert":
            return {"classifier_dropout": rate}
        case "roberta" | "xlm-roberta":
            return {"classifier_dropout": 1 - math.sqrt(1 - rate)}
        case "mpnet":
            return {}
        case _:
            size = module.encoder.config.hidden_size
            plain = {"pooler_hidden_act": "linear", "pooler_hidden_size": size, "pooler_dropout": 0.0}
            return {**plain, "cls_dropout": rate}


def _epsilon(naming: Naming, encoder: Any, num_layers: int) -> np.float32:
    """A power of two that keeps the input of tanh so small that tanh is the identity; 1 without tanh."""
    if not naming.has_tanh:
        return np.float32(1)
    norm = ungroup(encoder)["layers"][str(num_layers - 1)]["mlp_norm"]
    scale, bias = (np.abs(np.asarray(norm[name], np.float64)) for name in ("scale", "bias"))
    bound = (scale * math.sqrt(len(scale)) + bias).max(initial=1.0)
    return np.float32(2.0 ** math.floor(math.log2(TANH_IS_IDENTITY / bound)))


def _scaled_identity(epsilon: np.float32, size: int) -> np.ndarray:
    return epsilon * np.eye(size, dtype=np.float32)


def _turn(module: Classifier, kernel: np.ndarray) -> np.ndarray:
    """From a head's kernel to [D, C], or back: multiple heads hold it as [C, D]."""
    return kernel.T if module.heads == "multiple" else kernel
