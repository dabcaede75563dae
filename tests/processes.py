"""Several processes that are one run: their environment, and starting them together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runs import INTERRUPTED, environment, finish

Ended = tuple[int, str, str]  # exit code, stdout, stderr

COMMAND = "from jaxvalues.cli import main\nmain()\n"
NOWHERE = ("nowhere", "0", "SIGTERM")


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start(
    program: str,
    words: Sequence[Sequence[object]],
    devices: int = 1,
    late: float = 0,
    cwd: Sequence[Path] = (),
    **more: str,
) -> list[subprocess.Popen[str]]:
    """Start one process for each list of words, the last one `late` seconds later, with `devices` devices each."""
    address, processes = free_address(), []
    for number, arguments in enumerate(words):
        if late and number == len(words) - 1:
            time.sleep(late)
        place = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(len(words)),
            "JAX_PROCESS_ID": str(number),
        }
        place = place if len(words) > 1 else {}
        simulated = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd[number] if cwd else None,
            env=environment(PYTHONPATH=path, **place, **simulated, **more),
        )  # fmt: skip
        processes.append(process)
    return processes


def together(program: str, words: Sequence[Sequence[object]], seconds: float = 240, **where: object) -> list[Ended]:
    """`start`, and wait for all, so many seconds at most."""
    processes = start(program, words, **where)
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(finish, processes, [seconds] * len(processes)))


def interrupted(
    words: Sequence[object], strike: tuple[str, int, str] | None, number: int = 1, count: int = 2, **where: object
) -> list[Ended]:
    """Run a command on `count` processes, of which process `number` alone gets a signal at (where, step, signal)."""
    each = [(*(strike if strike and i == number else NOWHERE), *words) for i in range(count)]
    return together(INTERRUPTED, each, **where)
