"""The section `model`: the network, here or elsewhere, and how it is computed or asked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from jaxvalues.config.remote import RemoteConfig, endpoint_problem
from jaxvalues.config.section import Section, Text


class TokenizerTraining(Section):
    """A byte-level BPE tokenizer trained on the training split."""

    vocab_size: int = Field(2000, ge=300)
    """Number of tokens in the vocabulary."""


class ModelConfig(Section):
    """The network, and how it is computed."""

    path: Text | None = None
    """Checkpoint: a folder or a hub id (config.json and safetensors), or a GGUF file."""
    revision: Text | None = None
    """Revision of the checkpoint on the hub."""
    config: dict[str, Any] | None = None
    """In place of `path`: a Hugging Face config. The network starts from random weights."""
    tokenizer: Text | None = None
    """Folder or hub id of the tokenizer, when it is not beside the weights."""
    tokenizer_revision: Text | None = None
    """Revision of `tokenizer` on the hub."""
    train_tokenizer: TokenizerTraining | None = None
    """In place of `tokenizer`: train a tokenizer on the training split."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute dtype. Parameters that train stay float32; frozen matrices are held in this dtype. `auto`: bfloat16 on
    accelerators; on CPU what a measurement of a few milliseconds finds faster, or what the environment variable
    JAXVALUES_CPU_DTYPE says. A run keeps what was decided at its start."""
    quantization: Literal["int8", "int4"] | None = None
    """Hold frozen matrices of layers in 8 or 4 bits and multiply in `dtype` (weight-only quantization), which saves
    memory. int8 has one scale for each output, int4 one for each output and 32 inputs. Needs the extra
    `quantization`, and a mesh with `data` alone."""
    scan: bool | Literal["auto"] = "auto"
    """Run the layers in one scan (compiles faster) or unrolled (faster steps on CPU). `auto`: scan on accelerators,
    unrolled on CPU. Over a mesh with `fsdp` layers are always scanned, so that one at a time gathers its weights."""
    remat: bool = False
    """Recompute activations of layers in the backward pass, which saves memory."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout of hidden states and attention. null: that of the checkpoint."""
    endpoint: Text | None = None
    """In place of a network here: URL of an OpenAI-compatible endpoint, such as http://localhost:8000/v1, whose model
    is asked. Nothing trains: it needs `tuning.method: none`."""
    id: Text | None = None
    """endpoint: name of the model there. null: `path`."""
    answers: Text | None = None
    """endpoint: file in which answers are kept, which several runs may share. null: `answers.jsonl` in the folder of
    the run, or of the study or ensemble that it belongs to."""
    max_requests: int | None = Field(None, ge=1)
    """endpoint: most requests of a run, retries included. null: no limit."""
    max_cost: float | None = Field(None, gt=0)
    """endpoint: most that the answers of a run may cost, at the prices in `remote`. null: no limit."""
    remote: RemoteConfig = RemoteConfig()

    @field_validator("endpoint")
    @classmethod
    def _without_slash(cls, endpoint: str | None) -> str | None:
        """The same endpoint is the same text, as answers are kept by it."""
        return None if endpoint is None else endpoint.rstrip("/")

    @model_validator(mode="after")
    def _keys_belong_together(self) -> ModelConfig:
        if self.tokenizer_revision is not None and self.tokenizer is None:
            raise ValueError("`tokenizer_revision` belongs to `tokenizer`, which is not set")
        if self.endpoint is None:
            for key in ("id", "answers", "max_requests", "max_cost", "remote"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"`{key}` belongs to `endpoint`, which is not set")
            return self
        if problem := endpoint_problem(self.endpoint):
            raise ValueError(f"`endpoint` {problem}")
        if self.config is not None or self.train_tokenizer is not None:
            raise ValueError("`config` and `train_tokenizer` are for a network here, and `endpoint` asks one elsewhere")
        if self.id is None and self.path is None:
            raise ValueError("`endpoint` needs `id`, the name of the model there")
        if self.max_cost is not None and self.remote.input_price is None:
            raise ValueError("`max_cost` needs remote.input_price and remote.output_price")
        return self
