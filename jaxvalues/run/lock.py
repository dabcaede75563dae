"""The lock of a run folder: lock.json, which says who works there. Any file system will do."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ContextDecorator, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxvalues.errors import UserError
from jaxvalues.training.preemption import StopRequest
from jaxvalues.training.processes import has_sync_point

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

LOCK = "lock.json"


class RunLock:
    """The lock of one folder. The lock of a dead process of this machine is taken over, any other is respected."""

    _held: list[RunLock] = []  # noqa: RUF012  (of this process)

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self.token = secrets.token_hex(8)
        self._made: list[Path] = []

    def take(self) -> str:
        """Make the folder if it is absent, and lock it. Returns the token in the lock.

        Raises UserError where another process holds it, and where the folder cannot be written.
        """
        try:
            self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output: the run folder {self.folder} cannot be made ({error.strerror})") from None
        try:
            with _alone_on_this_machine(self.folder):
                if (owner := self._owner()) is not None:
                    if owner.get("token") is None or _may_live(owner):
                        raise UserError(self._refusal(owner))
                    self.path.unlink(missing_ok=True)
                self._write()
        except FileExistsError:
            raise UserError(self._refusal(self._owner() or {})) from None
        except OSError as error:
            self.release()
            raise UserError(f"output: the run folder {self.folder} cannot be written ({error.strerror})") from None
        self._held.append(self)
        return self.token

    def _write(self) -> None:
        with self.path.open("x", encoding="utf-8") as file:
            try:
                json.dump({**_myself(), "time": _now(), "token": self.token}, file)
                file.flush()
            except OSError:
                self.path.unlink()
                raise

    def release(self) -> None:
        """Remove the lock, if it is still this one; and folders that it was taken in for the first time, if empty."""
        if self in self._held:
            self._held.remove(self)
        try:
            if (self._owner() or {}).get("token") == self.token:
                self.path.unlink()
            for path in self._made:
                path.rmdir()
        except OSError:
            pass  # the folders hold something, or are gone

    def _owner(self) -> dict[str, Any] | None:
        """What lock.json says; {} where it is not to be read, None where there is none."""
        for attempt in range(5):
            try:
                owner = json.loads(self.path.read_text(encoding="utf-8"))
                return owner if isinstance(owner, dict) else {}
            except FileNotFoundError:
                return None
            except (OSError, ValueError):  # perhaps it is being written
                time.sleep(0.1 * attempt)
        return {}

    def _refusal(self, owner: dict[str, Any]) -> str:
        if owner.get("token") is None:
            return f"{self.path} cannot be read: if no other command works in this folder, remove that file"
        who = f"{self.folder} is in use by process {owner.get('pid')} on {owner.get('host')} since {owner.get('time')}"
        if _is_here(owner):
            return f"{who}: wait for it, or give another output=FOLDER"
        return f"{who}, which cannot be looked at from {socket.gethostname()}: if it is over, remove {self.path}"


class locks_released(ContextDecorator):
    """Releases, at the end of a function, however it ends, the locks that were taken in it.

    A signal that would end the process at once (SIGTERM, SIGHUP) ends the function first. With several processes JAX
    hears SIGTERM itself.
    """

    def _recreate_cm(self) -> locks_released:
        return locks_released()

    def __enter__(self) -> None:
        self.before, self.handled = list(RunLock._held), []
        if threading.current_thread() is threading.main_thread() and not has_sync_point():
            ending = (one for one in StopRequest.SIGNALS if one != signal.SIGINT)
            self.handled = [one for one in ending if signal.getsignal(one) is signal.SIG_DFL]
        for one in self.handled:
            signal.signal(one, _leave)

    def __exit__(self, *_: object) -> None:
        for one in self.handled:
            signal.signal(one, signal.SIG_DFL)
        for lock in [lock for lock in RunLock._held if lock not in self.before]:
            lock.release()


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _myself() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "space": _pid_space(), "started": _started(os.getpid())}


def _may_live(owner: dict[str, Any]) -> bool:
    """Whether the owner of a lock may still run: not if it is a process of this machine that has ended."""
    if not _is_here(owner):
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return owner.get("started") == _started(owner["pid"])  # else its number was given to another process


def _is_here(owner: dict[str, Any]) -> bool:
    """Whether the owner's process number means something here: same machine, same container."""
    mine = _myself()
    return isinstance(owner.get("pid"), int) and all(owner.get(key) == mine[key] for key in ("host", "space"))


def _started(pid: int) -> str | None:
    """When a process was started: the boot of the machine and the ticks since then; None where Linux does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()[19]}"
    except (OSError, IndexError):
        return None


def _pid_space() -> str | None:
    """The namespace of process numbers, as containers of one host name may have several."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


@contextmanager
def _alone_on_this_machine(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time look at a lock and replace it, where the file system can do that."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # without it, two processes that find the same dead owner at once could both go on
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
