"""Warm starts: `tuning.init_from` names another run, or an adapter that PEFT wrote, whose parameters a run starts from.

Prompts and prefixes are taken as the vectors that enter the network, however they were parameterised. So a run of
method prompt can start from one of p_tuning or from a residual one, and a prefix from a reparameterised one. All other
settings must agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict

from jaxvalues.config import Config
from jaxvalues.config.reading import user_path
from jaxvalues.errors import ConfigError
from jaxvalues.models import Classifier, group, head_from_modules, ungroup
from jaxvalues.models.t5.model import Prefix, Prompt
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.network import build_network
from jaxvalues.run.system import System, Weights
from jaxvalues.training.processes import from_main
from jaxvalues.training.sharding import place, replicated, tree_shardings
from jaxvalues.tuning import Params
from jaxvalues.tuning.peft_folder import CONFIG, WEIGHTS
from jaxvalues.tuning.peft_format import PeftTarget, from_peft


class WarmStart(NamedTuple):
    """Parameters that replace initial values, on the mesh; both fields are None without `tuning.init_from`.

    `identity` is the hash of the files they were read from.
    """

    trainable: Params | None = None
    identity: str | None = None

    @property
    def record(self) -> dict[str, str]:
        """Its entry in environment.json."""
        return {} if self.identity is None else {"init_from": self.identity}

    def replace(self, weights: Weights) -> Weights:
        """The initial weights, with those of the source in place of theirs."""
        return weights._replace(trainable={**weights.trainable, **(self.trainable or {})})


class _Trained(NamedTuple):
    """The trained parameters of a source, with unrolled layers.

    `added` is the part of its tuning method, `new` what else trained, `settings` what must agree on both sides.
    `notes` are sentences about what cannot be taken or may not fit.
    """

    method: str
    added: Params
    new: Params
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()


def find_warm_start(system: System, run_console: RunConsole) -> WarmStart:
    """Read what `tuning.init_from` names. A run that has a checkpoint or is finished needs it no more: nothing is read.

    Raises ConfigError that names both sides where they do not fit, and UserError for a source that cannot be read.
    """
    tuning = system.config.tuning
    folder = RunFolder(system.config.folder)
    if tuning.init_from is None or from_main("looking for a checkpoint", lambda: folder.is_under_way):
        return WarmStart()
    source, abstract = user_path(tuning.init_from), system.network.abstract_parts()[1]
    if (source / CONFIG).is_file():
        trained, files = _read_adapter(source, system), [source / CONFIG, source / WEIGHTS]
    elif (source / "config.yaml").is_file():
        trained, files = _read_run(source, system)
    else:
        raise ConfigError(
            f"tuning.init_from: {source} is neither the folder of a run (config.yaml) nor that of an adapter that PEFT "
            f"wrote ({CONFIG})"
        )
    shapes = jax.eval_shape(ungroup, abstract)
    _check_fits(source, system.config, trained, shapes[tuning.method])

    new = {key: tree for key, tree in trained.new.items() if key in shapes and _same_shapes(tree, shapes[key])}
    taken = group({tuning.method: trained.added, **new}, system.segments)
    run_console.print(f"the initial values of {' and '.join(taken)} are taken from {source}")
    dropped = sorted(trained.new.keys() - new.keys())
    for said in (*trained.notes, *(_own_kept(key, source) for key in dropped)):
        run_console.print(said)
    identity = from_main("hashing tuning.init_from", lambda: _hash(source, files))
    return WarmStart(jax.tree.map(place, taken, tree_shardings(taken, system.mesh)), identity)


def _read_adapter(source: Path, system: System) -> _Trained:
    """The parameters of an adapter, with its classifier's head where this run has such a head."""
    adapter, model_type = from_peft(source, PeftTarget(system.hf_config)), system.hf_config["model_type"]
    settings = {"rank": adapter.rank, "alpha": adapter.alpha} if adapter.method == "lora" else {}
    new, notes, module = {}, (), system.network.module
    if adapter.modules:
        head = head_from_modules(model_type, module, adapter.modules) if isinstance(module, Classifier) else None
        new = {} if head is None else {"head": head}
        notes = () if new else (_own_kept("head", source),)
    return _Trained(adapter.method, adapter.trainable[adapter.method], new, settings, notes)


def _own_kept(key: str, source: Path) -> str:
    form = " (one linear layer on the same features, with the same labels)" if key == "head" else ""
    return f"the {key} of {source} is not of this run's form{form}, so this run's own {key} is kept"


def _read_run(source: Path, system: System) -> tuple[_Trained, list[Path]]:
    """The trained parameters of a finished run, as arrays on the host, and the files of its checkpoint."""
    folder = RunFolder.finished(source)
    config, wanted = folder.config(), system.config.tuning
    method = config.tuning.method
    if method not in (wanted.method, *_GIVES_VECTORS_OF.get(wanted.method, ())):
        _refuse_method(source, method, system.config)
    network = build_network(config, folder.hf_config())
    with closing(folder.chosen(read_only=True)) as chosen:
        trainable, _ = chosen.restore(network.abstract_parts()[1], network.segments, system.mesh)
    trainable = jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(system.mesh))(trainable))
    added = trainable[method]
    if _is_vectors(system.config):
        bound = network.tuning.bind({}, trainable)
        added, method = _by_side(bound.prompt if wanted.method == "prompt" else bound.prefix), wanted.method
    new = {key: tree for key, tree in trainable.items() if key in network.target.new_keys}
    settings = {"rank": config.tuning.rank, "alpha": config.tuning.alpha} if method == "lora" else {}
    files = sorted(path for path in (folder.path / "checkpoints/chosen").rglob("*") if path.is_file())
    notes: tuple[str, ...] = ()
    if method != "full" and folder.environment()["base"] != system.identity:
        notes = (f"WARNING: {source} was trained on other weights than this run has, so that it may not fit them",)
    return _Trained(method, *jax.device_get(ungroup((added, new))), settings, notes), files


_GIVES_VECTORS_OF = {"prompt": ("p_tuning",)}


def _is_vectors(config: Config) -> bool:
    """Whether the vectors of a prompt or a prefix are themselves the parameters."""
    tuning = config.tuning
    return tuning.method in ("prompt", "prefix") and tuning.reparameterization in (None, "none")


def _by_side(bound: Any) -> Params:
    """The vectors that enter a network, {side: vectors}."""
    if isinstance(bound, Prompt | Prefix):
        return {side: vectors for side, vectors in bound._asdict().items() if vectors is not None}
    return {"encoder": bound}


def _check_fits(source: Path, config: Config, trained: _Trained, shapes: Params) -> None:
    """Raise ConfigError unless a run of this config trains what the source holds."""
    tuning = config.tuning
    if trained.method != tuning.method:
        _refuse_method(source, trained.method, config)
    for key, there in trained.settings.items():
        here = getattr(tuning, key)
        if here != there:
            raise ConfigError(f"tuning.init_from: {source} was trained with {key} {there}, and tuning.{key} is {here}")
    found, wanted = (_flat(tree) for tree in (trained.added, shapes))
    misfits = [path for path in sorted(found.keys() | wanted.keys()) if found.get(path) != wanted.get(path)]
    if misfits:
        first = misfits[0]
        there, here = (list(tree[first]) if first in tree else "absent" for tree in (found, wanted))
        more = f", and {len(misfits) - 1} more do not match" if len(misfits) > 1 else ""
        raise ConfigError(
            f"tuning.init_from: {tuning.method}/{first} is {there} in {source} and {here} in this config{more}"
        )


def _refuse_method(source: Path, method: str, config: Config) -> None:
    raise ConfigError(f"tuning.init_from: {source} holds {method}, and tuning.method is {config.tuning.method}")


def _flat(tree: Params) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(tree, sep="/").items()}


def _same_shapes(one: Params, other: Params) -> bool:
    return _flat(one) == _flat(other)


def _hash(source: Path, files: Iterable[Path]) -> str:
    """The sha256 of some files of a folder, the same wherever the folder lies."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(source)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
