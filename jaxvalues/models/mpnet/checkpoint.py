"""How MPNet's checkpoints on Hugging Face are named."""

from __future__ import annotations

from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, norm

TABLE = Table(
    rules=(
        Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding"),
        Rule("embeddings.position_embeddings.weight", "embeddings/position/embedding"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        Rule("encoder.relative_attention_bias.weight", "embeddings/relative/embedding"),
        *dense("encoder.layer.{i}.attention.attn.q", "layers/{i}/attention/query"),
        *dense("encoder.layer.{i}.attention.attn.k", "layers/{i}/attention/key"),
        *dense("encoder.layer.{i}.attention.attn.v", "layers/{i}/attention/value"),
        *dense("encoder.layer.{i}.attention.attn.o", "layers/{i}/attention/output"),
        *norm("encoder.layer.{i}.attention.LayerNorm", "layers/{i}/attention_norm"),
        *dense("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
        *dense("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
        *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/mlp_norm"),
    ),
    prefixes=("mpnet.", ""),
    # the pooler, task heads and a buffer: not part of the encoder
    ignorable=(r"pooler\..*", r"lm_head\..*", r"classifier\..*", r"qa_outputs\..*", r"embeddings\.position_ids"),
)
