"""A generative checkpoint, ready to read prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxvalues.config.reading import read_json
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.errors import UserError, short
from jaxvalues.formulations import SEQ2SEQ
from jaxvalues.generation import LanguageModel
from jaxvalues.generation.stopping import sequence_ends
from jaxvalues.models import (
    check_config,
    checkpoint_config,
    fetch,
    fetch_tokenizer,
    load_causal_lm,
    load_t5,
    tokenizer_folder,
)
from jaxvalues.models.checkpoints.gguf import is_gguf
from jaxvalues.models.layers.quantized import QUANTIZATIONS, require_qwix
from jaxvalues.run.base import fit_to_tokenizer
from jaxvalues.run.held import frozen_dtype, hold_leaf
from jaxvalues.run.probe import DTYPES
from jaxvalues.run.resolve import resolve_dtype
from jaxvalues.training.sharding import place_on, single_mesh
from jaxvalues.tuning import Bound

GENERATION_CONFIG = "generation_config.json"


def load_language_model(
    path_or_id: str | Path,
    dtype: str = "auto",
    *,
    quantization: str | None = None,
    revision: str | None = None,
    tokenizer: str | Path | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    scan: bool | str = "auto",
) -> LanguageModel:
    """A pretrained generative model with `generate` and `score`, from a local folder, a GGUF file or a name on the
    Hugging Face hub.

    `dtype` of the computation is "float32", "bfloat16" or "auto": bfloat16 on accelerators, and on CPU what is faster
    there (`run.probe`). Matrices are converted to it as they are read. With `quantization` "int8" or "int4" (extra
    `quantization`), those of the layers are held in 8 or 4 bits. `revision` is a branch, tag or commit of the hub.
    `tokenizer` is a folder or a name on the hub, where the checkpoint has none of its own. A batch has `batch_size`
    rows. `max_length` limits the tokens of a prompt and its answer together; None is all that the network reads. `scan`
    runs the layers in one loop, which compiles faster; "auto" does so on accelerators.

    Raises `UserError` for what cannot be read, a model that is not generative, and a tokenizer that does not fit it.
    """
    if not isinstance(path_or_id, str | Path):
        raise UserError(f"the model is {short(path_or_id)}, expected a folder, a GGUF file or a name on the hub")
    if scan not in (True, False, "auto"):
        raise UserError(f"scan is {short(scan)}, expected True, False or auto")
    if dtype not in ("auto", *DTYPES):
        raise UserError(f"dtype {short(dtype)} is not supported, expected auto, {' or '.join(DTYPES)}")
    if quantization not in (None, *QUANTIZATIONS):
        raise UserError(f"quantization {short(quantization)} is not supported, expected {' or '.join(QUANTIZATIONS)}")
    if quantization is not None:
        require_qwix()
    if tokenizer is not None and not isinstance(tokenizer, str | Path):
        raise UserError(f"tokenizer is {short(tokenizer)}, expected a folder or a name on the hub")
    folder = fetch(path_or_id, revision)
    config = checkpoint_config(folder)
    if config.get("vocab_size") is None:
        raise UserError(f"{folder}: config.json lacks vocab_size")
    check_config(config, str(folder))
    source = tokenizer_folder(folder) if tokenizer is None else fetch_tokenizer(tokenizer)
    known = load_tokenizer(source)
    fit_to_tokenizer(config, known, is_random=False)
    resolved = resolve_dtype(dtype)
    computed = jnp.dtype(resolved)
    place = place_on(
        single_mesh(),
        lambda path: frozen_dtype(path, computed),
        lambda path, leaf: hold_leaf(path, leaf, computed, quantization),
    )

    load = load_t5 if config["model_type"] in SEQ2SEQ else load_causal_lm
    module, params = load(folder, dtype=resolved, scan=scan, place=place)
    ends = sequence_ends(_configs(folder, config), known, config["vocab_size"])
    return LanguageModel(module, Bound(params), known, ends, batch_size, max_length)


def _configs(folder: Path, config: dict[str, Any]) -> list[tuple[str, dict]]:
    """What may say which tokens end a sequence, by its file, in the order in which transformers asks."""
    if is_gguf(folder):
        return [(folder.name, config)]
    paths = [folder / name for name in (GENERATION_CONFIG, "config.json")]
    return [(path.name, read_json(path, "the settings of generation")) for path in paths if path.exists()]
