"""How DeBERTa's checkpoints on Hugging Face are named: those of v1, and those of v2 and v3."""

from __future__ import annotations

from jaxvalues.models.checkpoints.conversion import Rule, Table, dense, norm, transpose

_ATTENTION = "encoder.layer.{i}.attention.self"
_SHARED = (
    Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding"),
    Rule("embeddings.position_embeddings.weight", "embeddings/position/embedding"),
    Rule("embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding"),
    Rule("embeddings.embed_proj.weight", "embeddings/project/kernel", transpose, transpose),
    *norm("embeddings.LayerNorm", "embeddings/norm"),
    Rule("encoder.rel_embeddings.weight", "embeddings/relative/embedding"),
    *dense("encoder.layer.{i}.attention.output.dense", "layers/{i}/attention/output"),
    *norm("encoder.layer.{i}.attention.output.LayerNorm", "layers/{i}/attention_norm"),
    *dense("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
    *dense("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
    *norm("encoder.layer.{i}.output.LayerNorm", "layers/{i}/mlp_norm"),
)
_V1 = (
    Rule(f"{_ATTENTION}.in_proj.weight", "layers/{i}/attention/in_proj/kernel", transpose, transpose),
    Rule(f"{_ATTENTION}.q_bias", "layers/{i}/attention/query/bias"),
    Rule(f"{_ATTENTION}.v_bias", "layers/{i}/attention/value/bias"),
    Rule(f"{_ATTENTION}.pos_proj.weight", "layers/{i}/attention/relative_key/kernel", transpose, transpose),
    *dense(f"{_ATTENTION}.pos_q_proj", "layers/{i}/attention/relative_query"),
)
_V2 = (
    *dense(f"{_ATTENTION}.query_proj", "layers/{i}/attention/query"),
    *dense(f"{_ATTENTION}.key_proj", "layers/{i}/attention/key"),
    *dense(f"{_ATTENTION}.value_proj", "layers/{i}/attention/value"),
    *dense(f"{_ATTENTION}.pos_key_proj", "layers/{i}/attention/relative_key"),
    *dense(f"{_ATTENTION}.pos_query_proj", "layers/{i}/attention/relative_query"),
    *norm("encoder.LayerNorm", "embeddings/relative_norm"),
    *dense("encoder.conv.conv", "embeddings/conv"),  # torch's [out, in, width] reversed is Flax's [width, in, out]
    *norm("encoder.conv.LayerNorm", "embeddings/conv_norm"),
)
_PREFIXES = ("deberta.", "")
# Task heads and buffers; and the absolute positions of pre-training, which published files hold and no layer sees.
_IGNORABLE = (
    *(r"pooler\..*", r"classifier\..*", r"qa_outputs\..*", r"embeddings\.position_ids"),
    *(r"cls\..*", r"lm_predictions\..*", r"mask_predictions\..*", r"embeddings\.position_embeddings\.weight"),
)
TABLE_V1 = Table(_SHARED + _V1, _PREFIXES, _IGNORABLE)
TABLE_V2 = Table(_SHARED + _V2, _PREFIXES, _IGNORABLE)
