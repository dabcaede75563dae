"""Loads tokenizers with transformers' AutoTokenizer, and trains small byte-level BPE tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvalues.data.tokenizer_files import tokenizer_place
from jaxvalues.data.tokenizer_source import as_in_source, check_files
from jaxvalues.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_UNKNOWN = 0.5
"""The share of unknown tokens in real text from which a tokenizer is taken for one of another language or model."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, which splits texts as its own files say.

    Raises UserError when it cannot be loaded, when the folder has no tokenizer files (transformers would invent a
    vocabulary of a few tokens), and when it differs from its files and cannot be repaired.
    """
    from transformers import AutoTokenizer

    folder = Path(tokenizer_place(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        check_files(tokenizer, folder)
        return as_in_source(tokenizer, folder)
    except UserError:
        raise
    except Exception as error:  # transformers and tokenizers raise whatever a faulty file leads to
        raise UserError(
            f"{folder}: the tokenizer could not be loaded ({first_line(error)[:120]}); set model.tokenizer to another "
            "folder or hub id"
        ) from None


def check_known(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], source: str) -> None:
    """Raises UserError if real texts become mostly unknown tokens, or none; `source` names the tokenizer."""
    ids = [id for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"] for id in row]
    unknown = ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
    if not ids or unknown > MOST_UNKNOWN * len(ids):
        share = f"{unknown / len(ids):.0%} of their tokens are unknown" if ids else "they become no tokens"
        raise UserError(
            f"{source}: this tokenizer of {len(tokenizer)} tokens does not fit the arguments, {share}: set "
            "model.tokenizer to that of the checkpoint"
        )


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """{token: id} of all special tokens: those with a role, such as EOS, and those that the files only mark as special,
    as the control tokens of Llama 3 and Gemma 3."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    marked = {str(token): id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {**marked, **named}


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of embeddings that a tokenizer has ids for: its largest id and 1. It may leave ids out."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def needed_embeddings(tokenizer: PreTrainedTokenizerBase) -> int:
    """`vocabulary_size` without the special tokens at its end that have no role.

    Texts do not become these, and a network may have no embeddings for them: Gemma 3's token of an image is one.
    """
    roles = set(tokenizer.all_special_ids)
    others = {id for id in special_tokens(tokenizer).values() if id not in roles}
    return max((id for id in tokenizer.get_vocab().values() if id not in others), default=-1) + 1


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """Trains a byte-level BPE tokenizer with RoBERTa's special tokens. The same `texts` give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the padding token, or of the end-of-text token if there is none (GPT-2 has no padding token)."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
