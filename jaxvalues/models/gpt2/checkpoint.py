"""How GPT-2's checkpoints on Hugging Face are named."""

from __future__ import annotations

from jaxvalues.models.checkpoints.conversion import Rule, Table, norm


def _conv1d(hf: str, path: str) -> tuple[Rule, Rule]:
    """The rules of transformers' Conv1D, a dense layer with its matrix as in Flax."""
    return Rule(f"{hf}.weight", f"{path}/kernel"), Rule(f"{hf}.bias", f"{path}/bias")


TABLE = Table(
    rules=(
        Rule("wte.weight", "embeddings/word/embedding"),
        Rule("wpe.weight", "embeddings/position/embedding"),
        *norm("h.{i}.ln_1", "layers/{i}/attention_norm"),
        *_conv1d("h.{i}.attn.c_attn", "layers/{i}/attention/qkv"),
        *_conv1d("h.{i}.attn.c_proj", "layers/{i}/attention/output"),
        *norm("h.{i}.ln_2", "layers/{i}/mlp_norm"),
        *_conv1d("h.{i}.mlp.c_fc", "layers/{i}/mlp/up"),
        *_conv1d("h.{i}.mlp.c_proj", "layers/{i}/mlp/down"),
        *norm("ln_f", "norm"),
    ),
    prefixes=("transformer.", ""),
    # the causal mask, which old files hold; the output matrix, which is the word embeddings; heads of other tasks
    ignorable=(
        *(r"h\.\d+\.attn\.(masked_)?bias", r"lm_head\.weight", r"multiple_choice_head\..*"),
        *(r"score\..*", r"classifier\..*", r"qa_outputs\..*"),
    ),
)
