"""The command line. Every command says on `--help` what it is for, with an example; heavy imports come late.

The commands are in `runs`, `comparing`, `exchange` and `batch`; `--help` lists them in the order of these modules.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from jaxvalues.cli import runs, comparing, exchange, batch  # isort: skip  (they register their commands)
from jaxvalues.cli.app import app
from jaxvalues.errors import UserError, fail, leave, print_everything

__all__ = ["app", "batch", "comparing", "exchange", "main", "runs"]


def main() -> None:
    """Entry point: user errors become one sentence, without a traceback, and the exit code they ask for."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it advises torch, which nothing here needs
    print_everything(sys.stdout, sys.stderr)
    try:
        try:
            app(prog_name="jaxvalues")
        finally:
            sys.stdout.flush()
    except UserError as error:
        fail(str(error), error.exit_code)
    except OSError as error:  # a full disk, a read-only folder, a pipe that nobody reads
        with open(os.devnull, "w") as nowhere, suppress(OSError, ValueError):
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # the interpreter flushes what is left as it ends
        fail(": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error)))), UserError.exit_code)
    except (KeyboardInterrupt, SystemExit) as error:
        if not _is_interrupt(error):
            raise
        fail("interrupted", 1)
    except Exception as error:
        leave(f"{type(error).__name__}: {error}", 1, error)
        raise


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C, which Typer makes an exit with some code."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
