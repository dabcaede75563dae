"""The peer for prompt tuning: PEFT's soft prompt before transformers' frozen language model, on torch.

Settings are those of `torch_contender`. The model answers the question of each row with Yes or No; the loss is binary
cross-entropy on log p(Yes) − log p(No). Logits of the whole vocabulary are computed, as PEFT's users do, but only at
the answer: GPT-2 by `logits_to_keep`, T5 by a decoder input of the start token alone. There is no key-value
cache.
"""

from __future__ import annotations

from typing import Any

import peft
import torch

from jaxvalues.bench.torch_answer_contender import AnswerContender

_DROPOUT = {"gpt2": ("embd_pdrop", "resid_pdrop", "attn_pdrop"), "t5": ("dropout_rate",)}
_OF_LLAMA = ("attention_dropout",)


class PeftContender(AnswerContender):
    """See `Contender`."""

    def _settings(self) -> dict[str, Any]:
        settings = super()._settings()
        if self.config.model.dropout is not None:
            settings |= dict.fromkeys(_DROPOUT.get(settings["model_type"], _OF_LLAMA), self.config.model.dropout)
        return settings

    @property
    def _before(self) -> int:
        return self.config.tuning.length

    def _tuned(self, model: torch.nn.Module, is_encoder_decoder: bool) -> torch.nn.Module:
        prompt = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM" if is_encoder_decoder else "CAUSAL_LM",
            num_virtual_tokens=self.config.tuning.length,
            num_transformer_submodules=1,
        )
        return peft.get_peft_model(model, prompt)

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        described["versions"]["peft"] = peft.__version__
        described["settings"] += ", logits at the answer only"
        return described
