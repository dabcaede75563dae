"""How far a long piece of work is: a bar on a terminal, now and then a line in a log file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

SILENCE_S = 30.0  # in a log file, which has no progress bar, a line at least this often


class ProgressLine:
    """A line that says how much is done, what is known besides, and how long the rest takes as soon as that is known.

    `what` names the work and what is counted, such as "step". Nothing stays on the screen at the end.
    """

    def __init__(self, console: Console, what: str, total: int, done: int = 0) -> None:
        self.console, self.what, self.total, self.done, self.stage = console, what, total, done, ""
        bar = [BarColumn(bar_width=20)] * (console.width >= 80)
        columns = (TextColumn("{task.description}"), *bar, TextColumn("{task.fields[said]}"))
        self.progress = Progress(
            *columns, _TimeLeft(), console=console, transient=True, disable=not console.is_terminal
        )
        self.task = self.progress.add_task(self._count, total=total, completed=done, said="")
        self.spoken = time.monotonic()

    def __enter__(self) -> ProgressLine:
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def begin(self, stage: str, total: int) -> None:
        """Count anew, in another stage of the work."""
        self.stage, self.total, self.done = f" ({stage})", total, 0
        self.progress.reset(self.task, total=total, description=self._count, said="")

    def say(self, said: str) -> None:
        """What happens now, such as "compiling"."""
        self.progress.update(self.task, said=said)

    def known(self, number: int) -> None:
        """So many were done before, by a run that was stopped; it is said, and takes no part in the time left."""
        if number:
            self.console.print(
                f"{self.what}s: {number:,} of {self.total:,} were done before{self.stage}", highlight=False
            )
            self.done += number
            self.progress.reset(self.task, total=self.total, completed=self.done, description=self._count, said="")

    def advance(self, number: int, said: str = "") -> None:
        """So many more are done."""
        self.done += number
        self.progress.update(self.task, completed=self.done, said=said, description=self._count)
        if not self.console.is_terminal and time.monotonic() - self.spoken > SILENCE_S:
            self.console.print(f"{self._count}  {said}".rstrip(), highlight=False)
            self.spoken = time.monotonic()

    @property
    def _count(self) -> str:
        return f"{self.what} {self.done:,} of {self.total:,}{self.stage}"


class _TimeLeft(ProgressColumn):
    """The time that is left; nothing while it is not known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished or task.time_remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.time_remaining), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left", "cyan")
