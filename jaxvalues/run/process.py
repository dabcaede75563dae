"""What a process sets up before its first compile."""

from __future__ import annotations

from rich.console import Console

from jaxvalues.config import Config
from jaxvalues.run.console import RunConsole
from jaxvalues.training.compilation import enable_cache
from jaxvalues.training.memory import keep_freed_memory
from jaxvalues.training.processes import is_main, join_processes


def start_process(config: Config, console: Console | None) -> RunConsole:
    """Set up memory, compile cache and, where the config says so, the connection to the other processes of the run.

    Returns the console of the run; only the first process of several prints.
    """
    keep_freed_memory()
    cache = enable_cache(config.runtime.compilation_cache)
    if config.runtime.distributed:
        join_processes()
    run_console = RunConsole((console or Console()) if is_main() else Console(quiet=True))
    run_console.process(cache, config.runtime.compilation_cache)
    return run_console
