"""What a process sets up before its first compile."""

from __future__ import annotations

import jax
from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.errors import ConfigError
from jaxvalues.run.console import RunConsole
from jaxvalues.run.provenance import start_facts
from jaxvalues.training.compilation import enable_cache
from jaxvalues.training.memory import keep_freed_memory
from jaxvalues.training.processes import is_alone, is_main, join_processes
from jaxvalues.training.start_checks import check_same


def start_process(config: Config, console: Console | None) -> RunConsole:
    """Set up memory, compile cache and, where the config says so, the connection to the other processes of the run.

    Returns the console of the run; only the first process of several prints. Raises ConfigError where processes differ
    in config, code or packages.
    """
    keep_freed_memory()
    cache = enable_cache(config.runtime.compilation_cache)
    if config.runtime.distributed:
        join_processes(config.runtime.start_timeout, config.runtime.heartbeat_timeout)
    if jax.process_count() > 1:
        if is_alone():
            raise ConfigError(
                f"JAX counts {jax.process_count()} processes, but they are not connected: set runtime.distributed=true "
                "in all of them"
            )
        check_same(lambda: start_facts(config))
    run_console = RunConsole((console or Console()) if is_main() else Console(quiet=True))
    run_console.process(cache, config.runtime.compilation_cache)
    return run_console
