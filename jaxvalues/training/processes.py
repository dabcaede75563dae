"""What the processes of a run must agree on: process 0 decides, the others hear it. Nothing else asks who it is.

Processes talk through the key-value store of `jax.distributed`. It works before a device is used, and waits with a time
limit, where a collective of JAX would wait for ever. All processes make the same calls in the same order. A process
alone talks to nobody.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from jaxvalues.errors import ConfigError, UserError, first_line, partings

ADDRESS, COUNT, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
FAILED = "jaxvalues/failed/"

PATIENCE_S = 1800.0
"""How long a process waits for another one, which may be downloading or hashing weights. A dead one is noticed by
`runtime.heartbeat_timeout`, one that failed at once."""
PARTING_S = 10.0
"""How long a process that failed waits for the others to fail too."""

T = TypeVar("T")
_calls = itertools.count()


def is_main() -> bool:
    """Whether this is process 0, the one that writes files and prints."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether the run has no other process. Uses no device unless processes are connected."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def join_processes(start_timeout: int, heartbeat_timeout: int) -> None:
    """Connect to the other processes of the run. Must be called before JAX uses a device.

    JAX finds them by itself on TPU pods and under SLURM, Open MPI and Kubernetes. Elsewhere, each process needs three
    environment variables: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from
    0). Both timeouts are in seconds. Raises ConfigError if the processes cannot be connected.
    """
    if jax.distributed.is_initialized():
        return
    limits = {"initialization_timeout": start_timeout, "heartbeat_timeout_seconds": heartbeat_timeout}
    try:
        if COUNT in os.environ and PROCESS_ID in os.environ:
            count, number = int(os.environ[COUNT]), int(os.environ[PROCESS_ID])
            jax.distributed.initialize(os.environ.get(ADDRESS), num_processes=count, process_id=number, **limits)
        else:
            jax.distributed.initialize(**limits)
    except (ValueError, RuntimeError) as error:
        first = first_line(error)[:100].rstrip(".")
        raise ConfigError(
            f"runtime.distributed: the other processes were not found ({first}); without SLURM, MPI, "
            f"Kubernetes or a TPU pod, each process needs {ADDRESS}=host:port, {COUNT} and {PROCESS_ID}"
        ) from None


def from_main(what: str, choose: Callable[[], T]) -> T:
    """What process 0 chooses, the same on all processes; JSON must be able to hold it.

    Only process 0 calls `choose`. A UserError that it raises is raised on all. `what` names the call in messages.
    """
    if is_alone():
        return choose()
    key = _key(what)
    if not is_main():
        return _unpack(_receive(f"{key}/0", 0, what))
    message = _pack(choose)
    _send(f"{key}/0", message)
    return _unpack(message)


def array_from_main(what: str, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> np.ndarray:
    """The float32 array of `shape` that process 0 reads, on all processes. It travels between devices.

    Only process 0 calls `read`. A UserError that it raises is raised on all. `what` names the call in messages.
    """
    if is_alone():
        return read()
    message = _pack(read) if is_main() else {}
    array, is_read = message.get("value", np.zeros(shape, np.float32)), np.int32("error" not in message)
    from jax.experimental import multihost_utils

    array, is_read = multihost_utils.broadcast_one_to_all((array, is_read))
    if not is_read:
        from_main(what, lambda: _unpack(message))
    return np.asarray(array)


def everyone(what: str, mine: Callable[[], T]) -> list[T]:
    """What each process gives, in their order, on all processes; JSON must be able to hold it.

    A UserError on one process is raised on all, and names that process.
    """
    if is_alone():
        return [mine()]
    number, message = jax.process_index(), _pack(mine)
    key = _key(what)
    if number:
        _send(f"{key}/{number}", message)
        messages = _receive(f"{key}/0", 0, what)
    else:
        messages = [message, *(_receive(f"{key}/{i}", i, what) for i in range(1, jax.process_count()))]
        _send(f"{key}/0", messages)
    for i, each in enumerate(messages):
        if "error" in each and i != number:
            each["error"] = _in_other_process(i, each["error"])
    return [_unpack(each) for each in messages]


def barrier(what: str) -> None:
    """Wait until every process has come here. Raises UserError, which names the one that is missing, after a while."""
    everyone(what, lambda: None)


def agree_to_stop(wanted: bool) -> bool:
    """Whether all processes stop here, as one of them was asked to. Alone: whether this one was asked (`wanted`).

    Processes must look equally often. Once stopping is agreed, every later look says so.
    """
    return wanted if is_alone() else _stopping.look(wanted)


def has_sync_point() -> bool:
    """Whether JAX itself hears SIGTERM and lets the processes agree on where to stop."""
    return not is_alone() and bool(jax.config.jax_enable_preemption_service)


class _Stopping:
    """The looks of this process. JAX counts per process, so runs one after another go on counting."""

    every = 8  # where JAX has no sync point: looks from one collective, which makes all processes wait, to the next

    def __init__(self) -> None:
        self.looks, self.agreed = 0, False

    def look(self, wanted: bool) -> bool:
        if self.agreed:
            return True
        from jax.experimental import multihost_utils

        self.looks += 1
        if has_sync_point():
            self.agreed = multihost_utils.reached_preemption_sync_point(self.looks)
        elif self.looks % self.every == 0:
            self.agreed = bool(np.max(multihost_utils.process_allgather(np.array(wanted))))
        return self.agreed


_stopping = _Stopping()


def part(sentence: str) -> bool:
    """Tell the other processes that this one fails. True: it is alone, or all of them fail.

    On False, the caller must exit at once: JAX's shutdown would wait for the other processes, which wait for this one.
    """
    if is_alone() or _parted:
        return is_alone() or _parted[0]
    _parted.append(_all_fail(sentence))
    return _parted[0]


partings.append(part)
_parted: list[bool] = []  # what came of it: it is asked once


def _all_fail(sentence: str) -> bool:
    try:
        _send(f"{FAILED}{jax.process_index()}", sentence)
        deadline = time.monotonic() + PARTING_S
        while time.monotonic() < deadline:
            if len(_client().key_value_dir_get(FAILED)) == jax.process_count():
                return True
            time.sleep(0.1)
    except jax.errors.JaxRuntimeError:
        pass  # process 0 is gone
    return False


def _pack(give: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": give()}
    except UserError as error:
        return {"error": str(error), "code": error.exit_code}


def _unpack(message: dict[str, Any]) -> Any:
    if "error" in message:
        kind = ConfigError if message["code"] == ConfigError.exit_code else UserError
        raise kind(message["error"])
    return message["value"]


def _receive(key: str, sender: int, what: str) -> Any:
    """The message under `key`. Raises UserError where a process failed meanwhile, or nothing comes in PATIENCE_S."""
    client, deadline = _client(), time.monotonic() + PATIENCE_S
    while True:
        try:
            return json.loads(client.blocking_key_value_get(key, 1000))  # milliseconds
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise UserError(f"{what}: process 0 is gone ({first_line(error)[:100]})") from None
        for place, sentence in client.key_value_dir_get(FAILED):
            raise UserError(_in_other_process(int(place.rsplit("/", 1)[-1]), json.loads(sentence)))
        if time.monotonic() > deadline:
            raise UserError(f"{what}: process {sender} did not come within {PATIENCE_S:.0f} s, see its log")


def _send(key: str, message: Any) -> None:
    _client().key_value_set(key, json.dumps(message), allow_overwrite=True)


def _key(what: str) -> str:
    return f"jaxvalues/{next(_calls)}/{what}"


def _client() -> Any:
    from jax._src import distributed  # there is no public name; Orbax takes it from here too

    return distributed.global_state.client


def _in_other_process(number: int, sentence: str) -> str:
    sentence = sentence.splitlines()[0]
    return f"process {number}: {sentence if len(sentence) < 250 else sentence[:247] + '...'}"
