"""Networks with pretrained or random weights, from a checkpoint folder, a Hugging Face name or a config alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvalues.config.reading import read_json, user_path
from jaxvalues.errors import UserError
from jaxvalues.models.architectures import ARCHITECTURES, architecture_of
from jaxvalues.models.checkpoints.conversion import Table, to_params, to_tensors
from jaxvalues.models.checkpoints.gguf import is_gguf, read_gguf_config
from jaxvalues.models.checkpoints.place import PlaceLike
from jaxvalues.models.checkpoints.weights import open_tensors, save_tensors
from jaxvalues.models.layers.layout import segments_for

_TOKENIZER = ["config.json", "*.txt", "*.model", "tokenizer*.json"]
_TOKENIZER += ["special_tokens_map.json", "added_tokens.json", "vocab.json", "chat_template.jinja"]
_DOWNLOADED = [*_TOKENIZER, "generation_config.json", "*.safetensors", "*.safetensors.index.json"]
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def load_model(
    path_or_name: str | Path, *, revision: str | None = None, place: PlaceLike = None, **options: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """A pretrained encoder: `(module, params)` from a local folder, a GGUF file or a name on the Hugging Face hub.

    `options` are those of `build_model`. `place(path, array)` puts each leaf on its devices (default: the default
    device). Raises `UserError` for a folder or name that cannot be read and for weights that do not fit the config.
    """

    def make(config: dict[str, Any], _: Any) -> tuple[nn.Module, Table]:
        return build_model(config, **options), ARCHITECTURES[config["model_type"]].table

    return load_checkpoint(path_or_name, make, revision, place)


def load_checkpoint(
    path_or_name: str | Path,
    make: Callable[[dict[str, Any], Mapping[str, Any]], tuple[nn.Module, Table]],
    revision: str | None = None,
    place: PlaceLike = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """A checkpoint's `(module, params)`; `make(config, tensors)` returns the module and the conversion table."""
    folder = fetch(path_or_name, revision)
    config, tensors = read_config(folder), open_tensors(folder)
    module, table = make(config, tensors)
    return module, to_params(tensors, table, abstract_params(module), place=place, source=str(folder))


def init_model(config: Mapping[str, Any], rng: jax.Array | int = 0, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """An encoder with random weights, `(module, params)`: normal with the config's initializer_range, as in HF.

    `config` is the contents of a config.json, `rng` a key or a seed, `options` are those of `build_model`.
    """
    module = build_model(config, **options)
    return module, random_params(module, rng)


def abstract_model(config: Mapping[str, Any], **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Like `init_model`, with shapes (`jax.ShapeDtypeStruct`) instead of arrays: nothing is computed."""
    module = build_model(config, **options)
    return module, abstract_params(module)


def random_params(module: nn.Module, rng: jax.Array | int) -> dict[str, Any]:
    """Random parameters of a module that is called with ids and a mask; `rng` is a key or a seed."""
    rng = jax.random.key(rng) if isinstance(rng, int) else rng
    return jax.jit(lambda key: _init(module, key))(rng)


def abstract_params(module: nn.Module) -> dict[str, Any]:
    """The shapes of a module's parameters, as `random_params` would return them."""
    return jax.eval_shape(lambda: _init(module, jax.random.key(0)))


def build_model(
    config: Mapping[str, Any],
    *,
    dtype: str = "float32",
    scan: bool | str = "auto",
    boundary: int = 0,
    top_alone: bool = False,
    stop_gradient_below: int = 0,
    dropout_below: bool = True,
    remat: bool = False,
    hidden_dropout: float | None = None,
    attention_dropout: float | None = None,
) -> nn.Module:
    """The encoder that the contents of a config.json describe, without parameters.

    `dtype` of the computation ("float32" or "bfloat16"; parameters are float32). `scan` stacks the layers and scans
    over them, "auto" on accelerators only: on CPU it saves seconds of compilation and costs 15 % of every step.
    `boundary` cuts the stack below that layer, so that what trains can be chosen by path. `top_alone` cuts it below the
    highest layer, of which few positions are computed: no copy of the others is made then. `stop_gradient_below`,
    `dropout_below` and `remat` are the module's. The dropouts replace the config's.
    """
    architecture = architecture_of(config)
    network = architecture.config.from_hf(config).with_dropout(hidden_dropout, attention_dropout)
    return architecture.module(
        network,
        segments_for(network.num_layers, is_scanned(scan), boundary, top_alone),
        dtype=compute_dtype(dtype),
        stop_gradient_below=stop_gradient_below,
        dropout_below=dropout_below,
        remat=remat,
    )


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of a computation; raises `UserError` unless it is float32 or bfloat16."""
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype {name!r} is not supported, expected float32 or bfloat16")
    return jnp.dtype(name)


def is_scanned(scan: bool | str) -> bool:
    """The option `scan` of `build_model` as a bool; "auto" is True on accelerators."""
    return jax.default_backend() != "cpu" if scan == "auto" else bool(scan)


def save_model(folder: str | Path, config: Mapping[str, Any], params: Any, *, prefix: str = "") -> None:
    """Write an encoder as a Hugging Face checkpoint: config.json and model.safetensors, names after `prefix`."""
    save_checkpoint(folder, config, to_tensors(params, ARCHITECTURES[config["model_type"]].table, prefix=prefix))


def save_checkpoint(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a Hugging Face checkpoint: config.json and model.safetensors."""
    save_tensors(Path(folder), tensors)
    (Path(folder) / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")


def read_config(folder: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint folder's config.json, unchanged (transformers would change some); or what a GGUF
    file says, in the same words."""
    if is_gguf(folder):
        return read_gguf_config(Path(folder))
    path = Path(folder) / "config.json"
    if not path.exists() and not path.is_symlink():
        raise UserError(f"{folder} holds no config.json, expected a Hugging Face checkpoint folder")
    return read_json(path, "the config of a network")


def fetch(path_or_name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a checkpoint: the folder or GGUF file given, or the cache to which a hub name is downloaded.

    Only the config, safetensors and tokenizer files are downloaded.
    """
    return _fetch(path_or_name, revision, _DOWNLOADED)


def fetch_config(path_or_name: str | Path, revision: str | None = None) -> dict[str, Any]:
    """The contents of a checkpoint's config.json; of a name on the hub nothing else is downloaded."""
    return read_config(_fetch(path_or_name, revision, ["config.json"]))


def fetch_tokenizer(path_or_name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a tokenizer; of a name on the hub no weights are downloaded."""
    return _fetch(path_or_name, revision, _TOKENIZER)


def tokenizer_folder(checkpoint: Path) -> Path:
    """Where the tokenizer of a checkpoint lies: in its folder, or beside its GGUF file.

    Raises UserError for a GGUF file without one beside it.
    """
    if not is_gguf(checkpoint):
        return checkpoint
    known = ("tokenizer*.json", "*.model", "vocab.json", "vocab.txt")
    if not any(next(checkpoint.parent.glob(pattern), None) for pattern in known):
        raise UserError(
            f"{checkpoint} has no Hugging Face tokenizer beside it: give one as tokenizer (model.tokenizer in a config)"
        )
    return checkpoint.parent


def _fetch(path_or_name: str | Path, revision: str | None, files: list[str]) -> Path:
    folder = user_path(path_or_name)
    if folder.is_dir() or (is_gguf(folder) and folder.is_file()):
        return folder
    name = str(path_or_name)
    if folder.exists():
        raise UserError(f"{name} is a file, expected a checkpoint folder, a GGUF file or a name on the hub")
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"the checkpoint folder {name} does not exist")

    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:  # the hub's HTTP client, and so its exceptions, differ between versions
        raise UserError(
            f"'{name}' is no folder here and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}): download it where there is a connection and give the folder"
        ) from error


def hub_commit(folder: Path) -> str | None:
    """The commit that a folder of the Hugging Face cache holds; None for any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name)
    return folder.name if is_snapshot else None


def hub_name(path_or_name: str) -> str | None:
    """The name, if `fetch` would look for it on the hub; None for a folder."""
    is_name = _HUB_NAME.fullmatch(path_or_name) and not user_path(path_or_name).exists()
    return path_or_name if is_name else None


def _init(module: nn.Module, rng: jax.Array) -> dict[str, Any]:
    ids = jnp.zeros((1, 1), jnp.int32)
    return module.init(rng, ids, jnp.ones_like(ids))["params"]
