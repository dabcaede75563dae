"""A run on several processes: connecting them, and waiting for each other."""

from __future__ import annotations

import os

import jax

from jaxvalues.errors import ConfigError

ADDRESS, COUNT, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def is_main() -> bool:
    """Whether this is process 0, the one that writes files and prints."""
    return jax.process_index() == 0


def join_processes() -> None:
    """Connect to the other processes of the run. Must be called before JAX uses a device.

    JAX finds them by itself on TPU pods and under SLURM, Open MPI and Kubernetes. Elsewhere, each process needs three
    environment variables: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from
    0). Raises ConfigError if the processes cannot be connected.
    """
    if jax.distributed.is_initialized():
        return
    try:
        if COUNT in os.environ and PROCESS_ID in os.environ:
            count, number = int(os.environ[COUNT]), int(os.environ[PROCESS_ID])
            jax.distributed.initialize(os.environ.get(ADDRESS), num_processes=count, process_id=number)
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"runtime.distributed: the other processes were not found ({str(error).rstrip('.')}); without SLURM, MPI, "
            f"Kubernetes or a TPU pod, each process needs {ADDRESS}=host:port, {COUNT} and {PROCESS_ID}"
        ) from None


def barrier(name: str) -> None:
    """Wait until every process of the run has reached the barrier `name`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
