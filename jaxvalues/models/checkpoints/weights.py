"""Weights in safetensors, one file or shards with an index, or in a GGUF file: read lazily, written, and hashed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy, and through it safetensors, bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxvalues.config.reading import entry, read_json, text_problem
from jaxvalues.errors import UserError, name_list, short
from jaxvalues.models.checkpoints.gguf import GGUFTensor, is_gguf, open_gguf

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor in an open file. Its shape and its type, such as F32, are known; numpy reads its numbers."""

    file: Any
    name: str
    shape: tuple[int, ...]
    kind: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        try:
            return np.asarray(self.file.get_tensor(self.name), dtype=dtype)
        except (SafetensorError, OSError) as error:  # the file was cut since it was opened
            raise UserError(f"the tensor {short(self.name)} cannot be read ({short(str(error), 80)})") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights, in the order of their names; or the one GGUF file.

    Raises `UserError` where there are none, or where a shard that the index names is missing.
    """
    if is_gguf(folder):
        return [folder]
    if (folder / SINGLE).is_file():  # first, as transformers looks: an index may be left of earlier shards
        return [folder / SINGLE]
    if os.path.lexists(folder / INDEX):
        weight_map = _read_index(folder / INDEX)
        files = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise UserError(f"{folder / INDEX} names {name_list(missing)}, but the folder does not hold them")
        return files
    if any(folder.glob("*.bin")):
        raise UserError(
            f"{folder} holds only .bin weights, expected {SINGLE}: convert them where torch is installed with "
            "transformers' AutoModel.from_pretrained(folder).save_pretrained(other_folder)"
        )
    raise UserError(
        f"{folder} holds neither {SINGLE} nor {INDEX}; a model that the hub has only as .bin must first be converted "
        "with transformers' AutoModel.from_pretrained(name).save_pretrained(folder) where torch is installed"
    )


def open_tensors(folder: Path) -> Mapping[str, LazyTensor | GGUFTensor]:
    """Every tensor of a folder's weights files, or of a GGUF file, by name, not yet read; 16-bit files too."""
    if is_gguf(folder):
        return open_gguf(folder)
    tensors: dict[str, LazyTensor] = {}
    for path in weight_files(folder):
        tensors |= open_tensor_file(path)
    return tensors


def open_tensor_file(path: Path) -> dict[str, LazyTensor]:
    """Every tensor of one safetensors file by name, not yet read. Raises UserError for a file that is not whole."""
    try:
        file = safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a whole safetensors file ({short(str(error), 80)})") from error
    parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    return {name: LazyTensor(file, name, tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}


def save_tensors(folder: Path, tensors: Mapping[str, np.ndarray], *, max_shard_bytes: int = 5_000_000_000) -> None:
    """Write tensors in Hugging Face's layout: one model.safetensors, or shards and their index above the limit."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_safetensors(shards[0], folder / SINGLE)
        return
    weight_map = {}
    for i, shard in enumerate(shards, start=1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_safetensors(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def save_safetensors(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file as torch's are. Raises `UserError` where that is not possible."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be written ({short(str(error), 80)})") from None


def content_hash(path: str | Path) -> str:
    """The sha256 (64 hex digits) of a folder's weights or of a GGUF file, the same wherever the folder is.

    Raises `UserError` for files that are not whole: their headers are read first, in no time.
    """
    digest = hashlib.sha256()
    open_tensors(Path(path))
    for file in weight_files(Path(path)):
        known = file.resolve().stat()
        digest.update(_file_hash(file.resolve(), known.st_size, known.st_mtime_ns, known.st_ino))
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _file_hash(file: Path, *_: int) -> bytes:
    """The sha256 of a file, read once by the runs of a study; its size, time of change and inode say that it is the
    same."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _read_index(path: Path) -> dict[str, str]:
    """{tensor: file} of an index. Raises UserError unless it names files of its own folder."""
    content = read_json(path, "an index of safetensors shards")
    weight_map = entry(content, "weight_map", dict, path, "an object of tensors and their files")
    for name, file in weight_map.items():
        if not isinstance(file, str) or file != Path(file).name or text_problem(file):
            raise UserError(f"{path}: `weight_map` gives {short(file)} for {short(name)}, expected the name of a file")
    if not weight_map:
        raise UserError(f"{path}: `weight_map` names no tensors")
    return weight_map
