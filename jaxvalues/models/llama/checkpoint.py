"""How checkpoints of the Llama family on Hugging Face are named."""

from __future__ import annotations

from jaxvalues.models.checkpoints.conversion import Rule, Table, dense

LM_HEAD = Rule("lm_head.weight", "head/embedding")
"""The output matrix [V, D] of a language model that does not share its word vectors."""


def _scale(hf: str, path: str) -> Rule:
    return Rule(f"{hf}.weight", f"{path}/scale")


def _table(*norms: Rule) -> Table:
    attention, mlp = "layers.{i}.self_attn", "layers.{i}.mlp"
    return Table(
        rules=(
            Rule("embed_tokens.weight", "embeddings/word/embedding"),
            _scale("layers.{i}.input_layernorm", "layers/{i}/attention_norm"),
            *dense(f"{attention}.q_proj", "layers/{i}/attention/query"),
            *dense(f"{attention}.k_proj", "layers/{i}/attention/key"),
            *dense(f"{attention}.v_proj", "layers/{i}/attention/value"),
            *dense(f"{attention}.o_proj", "layers/{i}/attention/output"),
            _scale(f"{attention}.q_norm", "layers/{i}/attention/query_norm"),
            _scale(f"{attention}.k_norm", "layers/{i}/attention/key_norm"),
            *norms,
            *dense(f"{mlp}.gate_proj", "layers/{i}/mlp/gate"),
            *dense(f"{mlp}.up_proj", "layers/{i}/mlp/up"),
            *dense(f"{mlp}.down_proj", "layers/{i}/mlp/down"),
            _scale("norm", "norm"),
        ),
        prefixes=("model.", ""),
        # rotary frequencies, which old files hold; the output matrix, tied or for another head; heads of other tasks
        ignorable=(
            *(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq", r"lm_head\.weight"),
            *(r"score\..*", r"qa_outputs\..*"),
        ),
    )


TABLE = _table(_scale("layers.{i}.post_attention_layernorm", "layers/{i}/mlp_norm"))
GEMMA_TABLE = _table(
    _scale("layers.{i}.post_attention_layernorm", "layers/{i}/attention_output_norm"),
    _scale("layers.{i}.pre_feedforward_layernorm", "layers/{i}/mlp_norm"),
    _scale("layers.{i}.post_feedforward_layernorm", "layers/{i}/mlp_output_norm"),
)
