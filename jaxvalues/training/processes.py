"""Several processes, one run: how they find each other."""

from __future__ import annotations

import os

import jax

from jaxvalues.errors import ConfigError

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def join_processes() -> None:
    """Connect to the other processes of the run; must come before anything uses a device.

    JAX finds them by itself on TPU pods and under SLURM, Open MPI and Kubernetes. Elsewhere each process says where
    process 0 listens (JAX_COORDINATOR_ADDRESS=host:port), how many there are (JAX_NUM_PROCESSES) and which one it is
    (JAX_PROCESS_ID, from 0). Raises ConfigError when neither is the case.
    """
    if jax.distributed.is_initialized():
        return
    try:
        if COUNT in os.environ and NUMBER in os.environ:
            count, number = int(os.environ[COUNT]), int(os.environ[NUMBER])
            jax.distributed.initialize(os.environ.get(ADDRESS), num_processes=count, process_id=number)
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"runtime.distributed: the other processes were not found ({str(error).rstrip('.')}); without SLURM, MPI, "
            f"Kubernetes or a TPU pod, each process needs {ADDRESS}=host:port, {COUNT} and {NUMBER}"
        ) from None


def meet(what: str) -> None:
    """Wait until every process of the run has come this far."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)
