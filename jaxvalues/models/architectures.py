"""The architectures with one stack of layers, by the `model_type` of their config.json. (T5 has two: `models.t5`.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvalues.errors import UserError, short
from jaxvalues.models.bert import checkpoint as bert
from jaxvalues.models.bert.config import BertConfig
from jaxvalues.models.bert.encoder import BertEncoder
from jaxvalues.models.checkpoints.conversion import Table
from jaxvalues.models.deberta import checkpoint as deberta
from jaxvalues.models.deberta.config import DebertaConfig
from jaxvalues.models.deberta.encoder import DebertaEncoder
from jaxvalues.models.gpt2 import checkpoint as gpt2
from jaxvalues.models.gpt2.config import GPT2Config
from jaxvalues.models.gpt2.decoder import GPT2
from jaxvalues.models.layers.config import TransformerConfig
from jaxvalues.models.layers.transformer import Transformer
from jaxvalues.models.llama import checkpoint as llama
from jaxvalues.models.llama.config import LlamaConfig
from jaxvalues.models.llama.decoder import Llama
from jaxvalues.models.model_types import GEMMA, LLAMA
from jaxvalues.models.mpnet import checkpoint as mpnet
from jaxvalues.models.mpnet.config import MPNetConfig
from jaxvalues.models.mpnet.encoder import MPNetEncoder


class Architecture(NamedTuple):
    """The three parts of an architecture: its config, its network and its conversion table."""

    config: type[TransformerConfig]
    module: type[Transformer]
    table: Table


BERT = Architecture(BertConfig, BertEncoder, bert.TABLE)
ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
    "mpnet": Architecture(MPNetConfig, MPNetEncoder, mpnet.TABLE),
    "deberta": Architecture(DebertaConfig, DebertaEncoder, deberta.TABLE_V1),
    "deberta-v2": Architecture(DebertaConfig, DebertaEncoder, deberta.TABLE_V2),
    "gpt2": Architecture(GPT2Config, GPT2, gpt2.TABLE),
    **dict.fromkeys(LLAMA, Architecture(LlamaConfig, Llama, llama.TABLE)),
    **dict.fromkeys(GEMMA, Architecture(LlamaConfig, Llama, llama.GEMMA_TABLE)),
}


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json's contents; raises `UserError` for a `model_type` that is not supported."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        known = ", ".join(sorted((*ARCHITECTURES, "t5")))
        raise UserError(f"model_type {short(model_type)} is not supported, expected one of {known}")
    return ARCHITECTURES[model_type]
