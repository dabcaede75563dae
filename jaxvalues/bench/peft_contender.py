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
import transformers

from jaxvalues.bench.torch_contender import TorchContender

_DROPOUT = {"gpt2": ("embd_pdrop", "resid_pdrop", "attn_pdrop"), "t5": ("dropout_rate",)}
_OF_LLAMA = ("attention_dropout",)


class PeftContender(TorchContender):
    """See `Contender`."""

    def _make_model(self) -> torch.nn.Module:
        settings = {**self.task.hf_config, "use_cache": False}
        if self.config.model.dropout is not None:
            settings |= dict.fromkeys(_DROPOUT.get(settings["model_type"], _OF_LLAMA), self.config.model.dropout)
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.start = config.decoder_start_token_id if config.is_encoder_decoder else None
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        prompt = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM",
            num_virtual_tokens=self.config.tuning.length,
            num_transformer_submodules=1,
        )
        last = self.config.tuning.length + self.batch["attention_mask"].sum(dim=1) - 1
        self.kept, self.place = (tensor.to(self.device) for tensor in torch.unique(last, return_inverse=True))
        return peft.get_peft_model(auto.from_config(config), prompt)

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        described["versions"]["peft"] = peft.__version__
        described["settings"] += ", logits at the answer only"
        return described

    def _outputs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.start is None:
            logits = self.call(**batch, logits_to_keep=self.kept).logits[torch.arange(len(self.place)), self.place]
        else:
            start = torch.full((len(batch["input_ids"]), 1), self.start, device=self.device)
            logits = self.call(**batch, decoder_input_ids=start).logits[:, 0]
        no, yes = self.task.words
        return logits[:, [yes]] - logits[:, [no]]
