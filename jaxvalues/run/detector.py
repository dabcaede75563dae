"""A detector: a finished run reduced to what trained, so that it is small enough to be handed on.

detector.json        the network it was trained on: its name on the Hugging Face hub and the hash of its tensors
adapter.safetensors  what trained, float32, by path, layer by layer
README.md            its card
As in a run folder:  config.yaml (without local paths) · environment.json · template.txt · synonyms.tsv ·
                     model/config.json · thresholds.json · scores.json · manifest.json

The network and its tokenizer are found on the hub, or in the folder `model.path`, and must be those of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from jaxvalues.config import Config
from jaxvalues.config.reading import entry, read_json
from jaxvalues.data.tokenizer_files import tokenizer_hash
from jaxvalues.errors import UserError, name_list
from jaxvalues.models import ungroup
from jaxvalues.models.checkpoints.weights import open_tensor_file
from jaxvalues.models.layers.layout import group
from jaxvalues.run.base import Base, find_base, own_tokenizer
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.network import Network
from jaxvalues.run.shipped import ABOUT
from jaxvalues.run.state import initial_weights
from jaxvalues.run.system import System, Weights
from jaxvalues.training.compilation import Programs
from jaxvalues.training.processes import from_main
from jaxvalues.training.sharding import place_on
from jaxvalues.tuning import Params

ADAPTER = "adapter.safetensors"


class About(NamedTuple):
    """What detector.json holds: the network by `base`, its name on the hub, and the sha256 of its `tensors` (see
    `tensors_hash`) and of its `tokenizer`; how many parameters trained; and of each reported split the official F1 with
    its 95 % interval."""

    base: str
    tensors: str
    tokenizer: str
    trained: int
    intervals: dict[str, dict[str, Any]]


def is_detector(path: str | Path) -> bool:
    """Whether a folder is that of a detector."""
    return (Path(path) / ABOUT).is_file()


class Detector(RunFolder):
    """The folder of a detector. It is read as a run folder, but for what it leaves out."""

    def about(self) -> About:
        """What detector.json holds. Raises UserError for a faulty file."""
        path = self.path / ABOUT
        content = read_json(path, "the network of the detector")
        kinds = {"base": str, "tensors": str, "tokenizer": str, "trained": int, "intervals": dict}
        return About(**{key: entry(content, key, kind, path) for key, kind in kinds.items()})

    def restore(self, config: Config, mesh: Mesh, programs: Programs | None = None) -> tuple[System, Weights]:
        """The trained network, (system, weights), with all that did not train from the base network of `config`.

        Raises UserError if that cannot be had, or is another network than the detector was trained on.
        """
        about = self.about()
        base = find_base(config.model, config.start_seed)
        tokenizer = own_tokenizer(config.model, base.folder)
        if tokenizer_hash(tokenizer) != about.tokenizer:
            raise UserError(self._other(config, about, "has another tokenizer than"))
        system = System(self.with_texts(config), self.hf_config(), tokenizer, mesh, programs=programs)
        found = from_main("hashing the tensors", lambda: tensors_hash(system.network, base.folder))
        if found != about.tensors:
            raise UserError(self._other(config, about, "holds other tensors than"))
        started = Base(self.hf_config(), base.folder, base.identity)
        frozen = initial_weights(system, started, config.start_seed).frozen
        return system, Weights(frozen, self._trainable(system))

    def _other(self, config: Config, about: About, how: str) -> str:
        return (
            f"model.path {config.model.path} {how} {about.base}, on which the detector {self.path.name} was trained: "
            "give a folder of that network"
        )

    def _trainable(self, system: System) -> Params:
        """What trained, grouped and placed as the system has it. Raises UserError for a file that does not fit."""
        path, place = self.path / ADAPTER, place_on(system.mesh)
        tensors = open_tensor_file(path)
        _, abstract = system.network.abstract_parts()
        flat = flatten_dict(jax.eval_shape(ungroup, abstract), sep="/")
        wanted = {name: tuple(leaf.shape) for name, leaf in flat.items()}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if misfits := [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]:
            raise UserError(f"{path}: does not fit config.yaml, tensors that differ: {name_list(misfits)}")
        arrays = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
        tree = group(unflatten_dict(arrays, sep="/"), system.segments)
        return unflatten_dict({name: place(name, leaf) for name, leaf in flatten_dict(tree, sep="/").items()}, sep="/")


def tensors_hash(network: Network, folder: Path) -> str:
    """The sha256 (64 hex digits) of the numbers that a network reads from a checkpoint folder.

    It does not depend on how files are named, split or ordered, nor on tensors that are not read.
    """
    digest = hashlib.sha256()
    for name, array in by_path(network.read(folder, lambda _, array: array)).items():
        digest.update(f"{name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def by_path(params: Params) -> Mapping[str, np.ndarray]:
    """{path: float32 array} of a tree with unrolled layers, sorted by path."""
    flat = flatten_dict(ungroup(params), sep="/")
    return {name: np.asarray(flat[name], np.float32) for name in sorted(flat)}
