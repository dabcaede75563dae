"""The call of an encoder, in which every token attends to every real token: BERT, RoBERTa, MPNet and DeBERTa."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from jaxvalues.models.layers.masks import pad_left
from jaxvalues.models.layers.transformer import Inputs, Transformer


class Encoder(Transformer):
    """Tokens to hidden states; the fields are those of `Transformer`."""

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None = None,
        *,
        prompt: jax.Array | None = None,
        prefix: jax.Array | None = None,
        deterministic: bool = True,
        layers: Sequence[int] = (-1,),
        first_only: bool = False,
        hidden: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Hidden states [B, T, D], one for each of `layers`: 0 the embeddings, k after layer k, negative from the end.

        Nothing above the highest of `layers` is computed. With `first_only` the highest is [B, 1, D], the first token
        alone, which saves most of the top layer's work.

        `input_ids` [B, T]; `attention_mask` [B, T], nonzero on real tokens. Unless `deterministic`, a "dropout" rng is
        needed. `hidden` [B, T, D] is the hidden state with the index `stop_gradient_below` of an earlier call: nothing
        below it is computed, and `input_ids` are not read.

        `prompt` [P, E] or [B, P, E] are vectors before all tokens, in the place of word vectors and with token type 0,
        like Hugging Face's `inputs_embeds`. `prefix` [L, 2, P, N, H] are keys and values before those of each layer,
        like its `past_key_values` (P-tuning v2; Liu et al., 2022). Every token attends to both. They take the first
        positions, the prefix before the prompt; RoBERTa's and MPNet's padding takes none. (The prefix of networks with
        relative positions has none: see `DebertaEncoder` and `MPNetEncoder`.) Hidden states are the tokens' alone.

        Raises `UserError` for an input longer than the network reads, prompt and prefix included; for a prompt or a
        prefix of another shape; and for a prompt where nothing below the layers is differentiated.
        """
        c = self.config
        past, size = c.prefix_length(prefix), c.prompt_length(prompt, len(attention_mask))
        inputs = Inputs(
            input_ids,
            attention_mask,
            mask=pad_left(attention_mask != 0, past + size, True)[:, None, None, :],  # [B, 1, 1, S + P + T]
            prompt_length=size,
            prefix_length=past,
            token_type_ids=token_type_ids,
            prompt=prompt,
            prefix=prefix,
            hidden=hidden,
        )
        return self.hidden_states(
            inputs, layers=layers, deterministic=deterministic, positions=size if first_only else None
        )
