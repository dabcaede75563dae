"""How BERT's and RoBERTa's checkpoints on Hugging Face are named."""

from __future__ import annotations

from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, norm

TABLE = Table(
    rules=(
        Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding"),
        Rule("embeddings.position_embeddings.weight", "embeddings/position/embedding"),
        Rule("embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding"),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *dense("encoder.layer.{i}.attention.self.query", "layers/{i}/attention/query"),
        *dense("encoder.layer.{i}.attention.self.key", "layers/{i}/attention/key"),
        *dense("encoder.layer.{i}.attention.self.value", "layers/{i}/attention/value"),
        *dense("encoder.layer.{i}.attention.output.dense", "layers/{i}/attention/output"),
        *norm("encoder.layer.{i}.attention.output.LayerNorm", "layers/{i}/attention_norm"),
        *dense("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
        *dense("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
        *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/mlp_norm"),
    ),
    prefixes=("bert.", "roberta.", ""),
    # poolers, task heads and buffers: not part of the encoder
    ignorable=(r"pooler\..*", r"cls\..*", r"lm_head\..*", r"classifier\..*", r"qa_outputs\..*", r"embeddings\.\w+_ids"),
    # the names of checkpoints converted from TensorFlow, bert-base-uncased among them
    aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
)
