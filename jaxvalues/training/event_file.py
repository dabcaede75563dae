"""The numbers of a run for TensorBoard, written by the process itself.

tensorboardX's SummaryWriter writes in a thread. Where the disk is full, the thread ends with a traceback, and the run
waits forever for its queue.
"""

from __future__ import annotations

import time
from pathlib import Path

from jaxvalues.training.heavy_imports import without

with without("torch"):  # which tensorboardX imports where it is installed, for a second, and needs for graphs alone
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar


class EventFile:
    """A file of events in `folder`. With `purge_step`, TensorBoard forgets what other files say from there on."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(folder / "events"))
        if purge_step is not None:
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))
        self.writer.flush()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Add one number; `flush` writes it."""
        self._write(step, summary=scalar(name, value))

    def flush(self) -> None:
        """Write what was added. Raises OSError where that is not possible."""
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def _write(self, step: int, **content: object) -> None:
        self.writer.write_event(Event(wall_time=time.time(), step=step, **content))
