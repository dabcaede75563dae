"""The peer for questions without PEFT: transformers' language model, which trains whole, on torch.

Settings are those of `torch_contender`. The model answers the question of each row with Yes or No; the loss is binary
cross-entropy on log p(Yes) − log p(No), with logits at the answer alone.
"""

from __future__ import annotations

import torch
import transformers

from jaxvalues.bench.task import Task
from jaxvalues.bench.torch_contender import TorchContender
from jaxvalues.config import parse_config


class AnswerContender(TorchContender):
    """See `Contender`."""

    def _make_model(self) -> torch.nn.Module:
        settings = {**self.task.hf_config, "use_cache": False}
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.start = config.decoder_start_token_id if config.is_encoder_decoder else None
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        last = self.batch["attention_mask"].sum(dim=1) - 1
        self.kept, self.place = (tensor.to(self.device) for tensor in torch.unique(last, return_inverse=True))
        return auto.from_config(config)

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
