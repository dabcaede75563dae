"""Checkpoints: the one module that talks to Orbax.

A run folder has two series. `checkpoints/resume` holds the latest state to resume from: trainable parameters, optimizer
state, step, and the `LoopState`. `checkpoints/chosen` holds the trainable parameters that the reported scores come
from. Both are written atomically and in the background. A checkpoint records how its layers are grouped and is
restored onto explicit shardings, so it can be read scanned or unrolled, and on any mesh.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from jaxvalues.errors import UserError
from jaxvalues.models.layers.layout import Grouping, group, ungroup
from jaxvalues.training.checksums import check_checkpoint, forget_checkpoint, record_checkpoint
from jaxvalues.training.orbax_noise import cause, keep_quiet
from jaxvalues.training.processes import from_main, is_main
from jaxvalues.training.sharding import tree_shardings


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not ask JAX whether to stop: it would count the looks of `agree_to_stop` anew."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """One series of checkpoints in `folder`. The newest `keep` are kept.

    With `read_only`, nothing is made or removed there, and the folder must exist.
    """

    def __init__(self, folder: Path, keep: int = 1, read_only: bool = False) -> None:
        self.folder, self.read_only = folder.absolute(), read_only
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file, expected the folder of checkpoints")
        if read_only and not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder, expected the checkpoints of a run")
        keep_quiet()
        options = ocp.CheckpointManagerOptions(  # not its read_only, which prints warnings
            max_to_keep=None if read_only else keep, cleanup_tmp_directories=not read_only, create=not read_only
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "memory": ocp.JsonCheckpointHandler()}
        with self._writing():
            self.manager = _Manager(self.folder, options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        return self.manager.latest_step()

    def save(self, step: int, tree: Any, segments: Grouping, memory: dict[str, Any]) -> None:
        """Write `tree`, whose layers are grouped in `segments`, and `memory`, which JSON can hold, in the background.

        A step that is already saved is not written again.
        """
        if from_main("looking for a checkpoint", lambda: step in self.manager.all_steps()):
            return
        memory = {**memory, "segments": _to_json(segments)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree), memory=ocp.args.JsonSave(memory))
        if is_main():
            forget_checkpoint(self.folder, step)
        with self._writing():
            self.manager.save(step, args=items, force=True)

    def restore(self, target: Any, segments: Grouping, mesh: Mesh) -> tuple[Any, dict[str, Any]]:
        """Read (tree, memory) of the newest checkpoint.

        `target` is a tree of (abstract) arrays whose layers are grouped in `segments`. The result has its structure,
        shapes and dtypes, and is placed on `mesh`. Raises UserError if there is no checkpoint or it does not fit.
        """
        step = from_main("looking for the newest checkpoint", self.latest)
        if step is None:
            raise UserError(f"{self.folder} holds no complete checkpoint")
        from_main("checking the checkpoint", lambda: check_checkpoint(self.folder, step))
        try:
            memory = self.manager.restore(step, args=ocp.args.Composite(memory=ocp.args.JsonRestore()))["memory"]
            saved = _from_json(memory.pop("segments"))
            stored = jax.eval_shape(lambda tree: _regroup(tree, segments, saved), target)
            _check_fits(_shapes(self.manager.item_metadata(step)["state"].tree), _shapes(stored))
            items = ocp.args.Composite(state=ocp.args.StandardRestore(_with_shardings(stored, mesh)))
            tree = self.manager.restore(step, args=items)["state"]
        except UserError as error:
            raise UserError(f"{self.folder}: checkpoint {step} does not fit this config: {error}") from None
        except Exception as error:  # Orbax, TensorStore and XLA each raise their own
            raise UserError(f"{self.folder}: checkpoint {step} cannot be read ({cause(error)})") from None
        if saved != segments:
            tree = jax.jit(lambda tree: _regroup(tree, saved, segments), out_shardings=tree_shardings(target, mesh))(
                tree
            )
        return tree, memory

    def wait(self) -> None:
        """Wait until all saves are on disk. Raises UserError where one could not be written."""
        with self._writing():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing, record the checksums of the newest checkpoint, and close the folder."""
        try:
            self.wait()
            if not self.read_only and is_main() and (step := self.latest()) is not None:
                record_checkpoint(self.folder, step)
        finally:
            with self._writing():
                self.manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A block that writes checkpoints, now or before in the background; whatever fails becomes a UserError."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore each raise their own
            raise UserError(
                f"{self.folder}: a checkpoint cannot be written ({cause(error)}); make space, then run the same "
                "command to resume"
            ) from None


def newest_step(folder: Path) -> int | None:
    """The step of the newest complete checkpoint in a folder, which is only looked at; None if there is none."""
    names = (path for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else ()
    return max((int(path.name) for path in names if ocp.utils.is_checkpoint_finalized(path)), default=None)


def _to_json(segments: Grouping) -> Any:
    """The grouping as JSON: [[first, last], …], or {stack: [[first, last], …]}."""
    if isinstance(segments, Mapping):
        return {stack: _to_json(each) for stack, each in segments.items()}
    return [list(segment) for segment in segments]


def _from_json(segments: Any) -> Grouping:
    if isinstance(segments, dict):
        return {stack: _from_json(each) for stack, each in segments.items()}
    return tuple((first, last) for first, last in segments)


def _regroup(tree: Any, old: Grouping, new: Grouping) -> Any:
    return tree if old == new else group(ungroup(tree), new)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _check_fits(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise UserError, naming the first leaf that is missing, unexpected or of another shape."""
    misfits = [path for path in sorted(found.keys() | wanted.keys()) if found.get(path) != wanted.get(path)]
    if misfits:
        there, here = (tree.get(misfits[0], "absent") for tree in (found, wanted))
        more = f", and {len(misfits) - 1} more do not match" if len(misfits) > 1 else ""
        raise UserError(f"{misfits[0]} is {there} in the checkpoint and {here} in the config{more}")


def _with_shardings(tree: Any, mesh: Mesh) -> Any:
    def describe(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(describe, tree, tree_shardings(tree, mesh))
