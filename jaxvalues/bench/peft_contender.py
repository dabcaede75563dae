"""The named peer of prompt tuning: PEFT's soft prompt before transformers' frozen language model, on torch.

Everything that `torch_contender` says holds here, too. The network answers the question of each row with Yes or No, and
its loss is binary cross-entropy on log p(Yes) − log p(No). The logits of all words are computed, as PEFT's users do it,
but only where the answer stands: PEFT hands GPT-2's `logits_to_keep` on, and T5's decoder reads its start token alone.
Neither keeps a cache of keys and values.
"""

from __future__ import annotations

from typing import Any

import peft
import torch
import transformers

from jaxvalues.bench.torch_contender import Torch

_DROPOUT = {"gpt2": ("embd_pdrop", "resid_pdrop", "attn_pdrop"), "t5": ("dropout_rate",)}


class Peft(Torch):
    """See `Contender`."""

    def _make_model(self) -> torch.nn.Module:
        settings = {**self.task.hf_config, "use_cache": False}
        if self.config.model.dropout is not None:
            settings |= dict.fromkeys(_DROPOUT[settings["model_type"]], self.config.model.dropout)
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
        described["settings"] += ", logits where the answer stands"
        return described

    def _outputs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.start is None:
            said = self.call(**batch, logits_to_keep=self.kept).logits[torch.arange(len(self.place)), self.place]
        else:
            start = torch.full((len(batch["input_ids"]), 1), self.start, device=self.device)
            said = self.call(**batch, decoder_input_ids=start).logits[:, 0]
        no, yes = self.task.words
        return said[:, [yes]] - said[:, [no]]
