"""Running a study: trials, choices and runs, each in its own folder, and going on where it was."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jaxvalues.config.writing import write_json, write_whole, writing
from jaxvalues.errors import UserError, first_line
from jaxvalues.evaluation.coverage import mark
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.process import start_process
from jaxvalues.run.train import train
from jaxvalues.study.choice import choose, extended
from jaxvalues.study.files import save_study
from jaxvalues.study.plan import Plan, PlannedRun
from jaxvalues.training.compilation import Programs
from jaxvalues.training.loop import Stopped
from jaxvalues.training.memory import peak_bytes, reset_peak_memory

MEASURED, FAILED = "measured.json", "failed.txt"
"""In the folder of a finished run: its seconds and memory. After its name, beside it: why a run failed."""


@dataclass(frozen=True)
class Share:
    """The part `number` (from 1) of `parts` of all trials and runs, for several machines at one study."""

    number: int = 1
    parts: int = 1

    def has(self, place: int) -> bool:
        """Whether what stands at this place of the plan belongs to it."""
        return place % self.parts == self.number - 1


def run_study(plan: Plan, share: Share, console: Console | None = None) -> bool:
    """Run what is not finished yet of a share of a study. Returns whether all of that share is finished.

    A run that fails is reported and left out; the next command tries it again. Raises Stopped when asked to stop: the
    same command goes on there.
    """
    runner = _Runner(plan, share, console)
    finished, added, before = True, extended(plan), None
    while added != before:  # until all that the ranges have is tried
        for number, system in enumerate(plan.systems):
            finished &= runner.finish(plan.trials(system, added), number)
        added, before = extended(plan), added
    for number, system in enumerate(plan.systems):
        chosen = choose(plan.trials(system, added))
        if chosen is None:
            runner.say(f"{system}: its runs wait for trials that are not finished; run the command again")
            finished = False
        else:
            finished &= runner.finish(plan.runs(system, chosen), number)
    return finished


class _Runner:
    """Trains planned runs one after another, with one set of compiled programs, and says how far it is.

    What a run says stands in a log beside its folder.
    """

    def __init__(self, plan: Plan, share: Share, console: Console | None) -> None:
        study = plan.study
        run_console = start_process(plan.first(next(iter(plan.systems))), console)
        with writing(study.folder):
            study.folder.mkdir(parents=True, exist_ok=True)
        save_study(study)
        self.share, self.programs, self.console = share, Programs(), run_console
        repeats = sum(len(plan.runs(system, plan.first_values(system))) for system in plan.systems)
        self.total = repeats + sum(len(plan.trials(system)) for system in plan.systems)
        self.done: set[Path] = set()
        self.seconds: list[float] = []

    def say(self, text: str) -> None:
        self.console.print(text)

    def finish(self, planned: Sequence[PlannedRun], system: int) -> bool:
        """Train those of system number `system` that are in the share and not finished.

        Returns whether all in the share are finished.
        """
        finished = True
        for place, one in enumerate(planned, start=system * len(planned)):
            if RunFolder(one.config.folder).is_finished:
                self.done.add(one.config.folder)
            elif self.share.has(place):
                finished &= self._train(one)
        return finished

    def _train(self, one: PlannedRun) -> bool:
        """Train one. Returns whether it finished; where it did not, the reason is written beside its folder."""
        folder, start = one.config.folder, time.monotonic()
        reset_peak_memory()
        self.say(f"{one.label}{' (trial)' if one.is_trial else ''}: begins; {self._progress()}")
        failed, log = failure_file(folder), folder.with_name(f"{folder.name}.log")
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            own = RunConsole(Console(file=file, width=120, markup=False, emoji=False), brief=True)
            try:
                scores = train(one.config, programs=self.programs, run_console=own)
            except Stopped:
                raise
            except Exception as error:  # the other runs go on, whatever it was
                said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
                write_whole(failed, f"{said}\n\n{traceback.format_exc()}")
                self.say(f"{one.label}: FAILED: {said}; the study goes on (details in {failed})")
                return False
        failed.unlink(missing_ok=True)
        seconds = time.monotonic() - start
        write_json(folder / MEASURED, {"seconds": round(seconds, 2), "peak_bytes": peak_bytes()})
        self.done.add(folder)
        self.seconds.append(seconds)
        found = {"held-out": RunFolder.finished(folder).held_out_scores(), **scores}
        figures = ", ".join(f"{split} {each.official_f1:.3f}{mark(each)}" for split, each in found.items())
        self.say(f"{one.label}: official F1 {figures}; {duration(seconds)}")
        gc.collect()  # frees the arrays of the run before the next one starts
        return True

    def _progress(self) -> str:
        left = max(self.total - len(self.done), 1)
        said = f"{len(self.done)} of {self.total} done"
        if self.seconds:
            mean = sum(self.seconds) / len(self.seconds)
            said += f", about {duration(mean * left / self.share.parts)} left"
        return said


def failure_file(folder: Path) -> Path:
    """Where it stands why the run of a folder failed."""
    return folder.with_name(f"{folder.name}.{FAILED}")


def duration(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
