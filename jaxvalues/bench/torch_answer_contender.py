"""The peer for questions without PEFT: transformers' language model, which trains whole, on torch.

Settings are those of `torch_contender`. The model answers the question of each row with Yes or No; the loss is binary
cross-entropy on log p(Yes) − log p(No), with logits at the answer alone.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

from jaxvalues.bench.task import Task
from jaxvalues.bench.torch_contender import TorchContender
from jaxvalues.config import parse_config


class AnswerContender(TorchContender):
    """See `Contender`. Peers that change the model fill in `_settings`, `_before` and `_tuned`."""

    def _settings(self) -> dict[str, Any]:
        """The settings of the model's config."""
        return {**self.task.hf_config, "use_cache": False}

    @property
    def _before(self) -> int:
        """The number of vectors before the tokens of each row."""
        return 0

    def _tuned(self, model: torch.nn.Module, is_encoder_decoder: bool) -> torch.nn.Module:
        """The model with what trains in it."""
        return model

    def _make_model(self) -> torch.nn.Module:
        settings = self._settings()
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.start = config.decoder_start_token_id if config.is_encoder_decoder else None
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        last = self._before + self.batch["attention_mask"].sum(dim=1) - 1
        self.kept, self.place = (tensor.to(self.device) for tensor in torch.unique(last, return_inverse=True))
        return self._tuned(auto.from_config(config), config.is_encoder_decoder)

    def _outputs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.start is None:
            logits = self.call(**batch, logits_to_keep=self.kept).logits[torch.arange(len(self.place)), self.place]
        else:
            start = torch.full((len(batch["input_ids"]), 1), self.start, device=self.device)
            logits = self.call(**batch, decoder_input_ids=start).logits[:, 0]
        no, yes = self.task.words
        return logits[:, [yes]] - logits[:, [no]]


def make_contender(task: Task) -> TorchContender:
    """The torch peer of a task without PEFT: a classifier, or a language model that answers questions."""
    return (AnswerContender if parse_config(task.config).formulation.asks_questions else TorchContender)(task)
