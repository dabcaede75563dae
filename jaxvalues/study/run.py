"""Running a study: trials, choices, runs and their combinations, each in its own folder, and going on where it was."""

from __future__ import annotations

import gc
import shutil
import time
import traceback
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from jaxvalues.config.writing import writing
from jaxvalues.evaluation.coverage import mark
from jaxvalues.evaluation.measures import TaskScores
from jaxvalues.remote.store import STORE
from jaxvalues.run.console import RunConsole
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.process import start_process
from jaxvalues.run.remote import sharing_answers
from jaxvalues.run.together import train_together
from jaxvalues.run.train import train
from jaxvalues.study.budget import save_budget
from jaxvalues.study.choice import choose, extended
from jaxvalues.study.combined import PlannedCombination, combined_runs
from jaxvalues.study.combining import Halving, combine_members, has_reached, result_folder
from jaxvalues.study.failures import has_diverged, remove_failure, sentence_of, write_failure
from jaxvalues.study.files import save_study
from jaxvalues.study.grouping import groups
from jaxvalues.study.measured import Measured, read_measured, together, write_measured
from jaxvalues.study.plan import FEATURES, Plan, PlannedRun
from jaxvalues.training.compilation import Programs
from jaxvalues.training.loop import Paused, Stopped
from jaxvalues.training.memory import peak_since, start_peak


@dataclass(frozen=True)
class Share:
    """The part `number` (from 1) of `parts` of all trials and runs, for several machines at one study."""

    number: int = 1
    parts: int = 1

    def has(self, place: int) -> bool:
        """Whether what stands at this place of the plan belongs to it."""
        return place % self.parts == self.number - 1

    def of(self, file: str) -> str:
        """The name of a file that machines do not share: answers.jsonl, or answers-1of4.jsonl."""
        stem, dot, suffix = file.rpartition(".")
        return file if self.parts == 1 else f"{stem}-{self.number}of{self.parts}{dot}{suffix}"


def run_study(plan: Plan, share: Share, console: Console | None = None) -> bool:
    """Run what is not finished yet of a share of a study. Returns whether all of that share is finished.

    A run that fails is reported and left out; the next command tries it again. Raises Stopped when asked to stop: the
    same command resumes there.
    """
    runner = _Runner(plan, share, console)
    if plan.replication is not None:
        runner.say(plan.replication)
    finished, added, before = True, extended(plan), None
    while added != before:  # until all that the ranges have is tried
        for number, system in enumerate(plan.systems):
            finished &= runner.finish(plan.trials(system, added), number)
        added, before = extended(plan), added
    for number, system in enumerate(plan.systems):
        chosen = choose(plan, system, added)
        if chosen is None:
            runner.say(f"{system}: its runs wait for trials that are not finished; run the command again")
            finished = False
        else:
            finished &= runner.finish(plan.runs(system, chosen), number)
    for number, (name, how) in enumerate(plan.study.scientific.combined.items(), start=len(plan.systems)):
        chosen = choose(plan, how.of, added)
        if chosen is None:
            runner.say(f"{name}: its runs wait for trials that are not finished; run the command again")
            finished = False
        else:
            finished &= runner.combine(combined_runs(plan, name, chosen), number)
    if is_finished(plan) and not plan.study.keep_features:
        runner.remove_features(plan.study.folder / FEATURES)
    return finished


def is_finished(plan: Plan) -> bool:
    """Whether all trials, runs and combinations of a study are finished."""
    added = extended(plan)
    chosen = {system: choose(plan, system, added) for system in plan.systems}
    if None in chosen.values():
        return False
    runs = (one for system in plan.systems for one in plan.runs(system, chosen[system]))
    combined = plan.study.scientific.combined
    results = (one for name, how in combined.items() for one in combined_runs(plan, name, chosen[how.of]))
    return all(RunFolder(one.config.folder).is_finished for one in runs) and all(map(result_folder, results))


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
        save_budget(plan)
        self.share, self.programs, self.console = share, Programs(), run_console
        self.study = study
        self.together = study.together
        self.total = len(planned_folders(plan))
        self.done: set[Path] = set()
        self.seconds: list[float] = []

    def say(self, text: str) -> None:
        self.console.print(text)

    def finish(self, planned: Sequence[PlannedRun], system: int, needed: Container[Path] | None = None) -> bool:
        """Train those of system number `system` that are in the share and not finished; with `needed`, of these folders
        alone.

        A trial whose loss is not finite is not tried again. Returns whether all in the share are finished.
        """
        finished, left = True, []
        for place, one in enumerate(planned, start=system * len(planned)):
            folder = one.config.folder
            if RunFolder(folder).is_finished or (one.is_trial and has_diverged(folder)):
                self.done.add(folder)
            elif self.share.has(place) and (needed is None or folder in needed):
                left.append(one)
        for group in groups(left, self.together):
            finished &= self._train(group[0]) if len(group) == 1 else self._train_together(group)
        return finished

    def combine(self, planned: Sequence[PlannedCombination], system: int) -> bool:
        """Train the members of combined runs as `finish` does, and combine those of the share that have all members.

        Returns whether all in the share are combined.
        """
        waiting = [one for one in planned if result_folder(one) is None]
        halving = [one for one in waiting if one.how.combine == "halving"]
        # The place of a member, which decides whose share it is, must not depend on what is finished.
        members = {each.config.folder: each for one in planned if one not in halving for each in one.members}
        needed = {each.config.folder for one in waiting if one not in halving for each in one.members}
        finished = self.finish(tuple(members.values()), system, needed)
        for place, one in enumerate(planned, start=system * len(planned)):
            if one not in waiting or not self.share.has(place):
                continue
            if one in halving:
                finished &= self._halve(one)
            elif one.finished_members < len(one.members):
                self.say(
                    f"{one.label}: waits for {len(one.members) - one.finished_members} of {len(one.members)} members "
                    "that are not finished; run the command again"
                )
                finished = False
            else:
                finished &= self._logged(one.label, one.folder, partial(self._combine, one))
        return finished

    def _combine(self, one: PlannedCombination, console: Console) -> None:
        combine_members(one, self.programs, console)
        self._say_scores(one.label, one.folder, read_measured(one.folder).seconds)

    def _halve(self, one: PlannedCombination) -> bool:
        """Train the members of a run, round by round, as far as they are among the best; whether one is chosen."""
        halving = Halving(one, self.study.metric)
        for each in halving.rounds:
            step = halving.pause_at(each)
            for member in halving.left:
                if not has_reached(member, step) and not self._train(member, step):
                    self.say(f"{one.label}: cannot choose, as {member.label} failed")
                    return False
            if step is not None and not self._logged(one.label, one.folder, partial(_drop, halving, step)):
                return False
        folder = halving.write()
        self.done.add(one.folder)
        self._say_scores(one.label, folder, read_measured(one.folder).seconds)
        return True

    def remove_features(self, folder: Path) -> None:
        """Remove what runs shared of frozen layers, and say its size."""
        if folder.is_dir():
            size = sum(file.stat().st_size for file in folder.iterdir())
            shutil.rmtree(folder, ignore_errors=True)
            self.say(f"what frozen networks gave and runs shared ({size / 2**20:,.1f} MiB) is removed")

    def _train(self, one: PlannedRun, pause_at: int | None = None) -> bool:
        """Train one, to its end or until it pauses. Returns whether it came there; if not, the reason is written."""
        self.say(f"{one.label}{' (trial)' if one.is_trial else ''}: begins; {self._progress()}")
        return self._logged(one.label, one.config.folder, partial(self._train_one, one, pause_at))

    def _train_one(self, one: PlannedRun, pause_at: int | None, console: Console) -> None:
        folder, start, before = one.config.folder, time.monotonic(), start_peak()
        pausing = {} if pause_at is None else {"pause_at": pause_at}
        own, paused = RunConsole(console, brief=True), False
        try:
            config = sharing_answers(one.config, self.study.folder / self.share.of(STORE))
            train(config, programs=self.programs, run_console=own, **pausing)
        except Paused:
            paused = True
        finally:  # a run that is stopped takes what it took until then, too
            seconds = time.monotonic() - start
            _add_measured(folder, Measured(seconds, peak_since(before)))
        gc.collect()  # frees the arrays of the run before the next one starts
        if paused:
            self.say(f"{one.label}: pauses; {duration(seconds)}")
            return
        self.done.add(folder)
        self.seconds.append(seconds)
        self._say_scores(one.label, folder, seconds)

    def _train_together(self, group: Sequence[PlannedRun]) -> bool:
        """Train some at once, or one by one where that is not possible. Returns whether all of them finished."""
        start, found, before = time.monotonic(), None, start_peak()
        what = "trials" if group[0].is_trial else "runs"
        self.say(f"{group[0].label} and {len(group) - 1} more {what}: begin together; {self._progress()}")
        with ExitStack() as logs:
            consoles = [RunConsole(logs.enter_context(_log(one.config.folder)), brief=True) for one in group]
            try:
                found = train_together([one.config for one in group], consoles, self.programs)
            except Stopped:
                share = (time.monotonic() - start) / len(group)
                for one in group:
                    _add_measured(one.config.folder, Measured(share, peak_since(before), len(group)))
                raise
            except Exception as error:  # such as too little memory
                self.say(f"they are trained one by one instead: {sentence_of(error)}")
        if found is None:
            ends = [self._train(one) for one in group if not RunFolder(one.config.folder).is_finished]
        else:
            took = Measured((time.monotonic() - start) / len(group), peak_since(before), len(group))
            ends = [
                self._logged(one.label, one.config.folder, partial(self._end, one, own, took))
                for one, own in zip(group, found, strict=True)
            ]
        gc.collect()  # frees the arrays of these runs before the next ones start
        return all(ends)

    def _end(self, one: PlannedRun, found: dict[str, TaskScores] | Exception, took: Measured, _: Console) -> None:
        """Write and say what one of several runs found. Raises the exception by which it failed."""
        if isinstance(found, Exception):
            raise found
        folder = one.config.folder
        _add_measured(folder, took)
        self.done.add(folder)
        self.seconds.append(took.seconds)
        self._say_scores(one.label, folder, took.seconds)

    def _logged(self, label: str, folder: Path, work: Callable[[Console], None]) -> bool:
        """Do what makes a folder, with a log beside it. Returns whether it was done.

        Where it fails, the reason is written beside the folder, and the study goes on.
        """
        with _log(folder) as console:
            try:
                work(console)
            except Stopped:
                raise
            except Exception as error:  # the other runs go on, whatever it was
                failed = write_failure(folder, error, traceback.format_exc())
                self.say(f"{label}: FAILED: {sentence_of(error)}; the study continues (details in {failed})")
                return False
        remove_failure(folder)
        return True

    def _say_scores(self, label: str, folder: Path, seconds: float | None) -> None:
        run = RunFolder(folder)
        found = {"held-out": run.held_out_scores(), **run.scores()}
        figures = ", ".join(f"{split} {each.official_f1:.3f}{mark(each)}" for split, each in found.items())
        self.say(f"{label}: official F1 {figures}" + ("" if seconds is None else f"; {duration(seconds)}"))

    def _progress(self) -> str:
        left = max(self.total - len(self.done), 1)
        said = f"{len(self.done)} of {self.total} done"
        if self.seconds:
            mean = sum(self.seconds) / len(self.seconds)
            said += f", about {duration(mean * left / self.share.parts)} left"
        return said


def _add_measured(folder: Path, took: Measured) -> None:
    """Add what a part of a run took to its record, if the run has a folder by now."""
    if folder.is_dir():
        write_measured(folder, together([read_measured(folder), took]))


def planned_folders(plan: Plan) -> set[Path]:
    """The folders of all trials, runs and members, each once, before anything is chosen on held-out arguments."""
    planned = [one for system in plan.systems for one in plan.trials(system)]
    planned += [one for system in plan.systems for one in plan.runs(system, plan.first_values(system))]
    chosen = set()
    for name, how in plan.study.scientific.combined.items():
        for one in combined_runs(plan, name, plan.first_values(how.of)):
            if how.combine == "halving":
                chosen.add(one.folder)
            else:
                planned += one.members
    return chosen.union(one.config.folder for one in planned)


def _drop(halving: Halving, step: int, _: Console) -> None:
    halving.drop(step)


@contextmanager
def _log(folder: Path) -> Iterator[Console]:
    """The log beside a folder."""
    log = folder.with_name(f"{folder.name}.log")
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        yield Console(file=file, width=120, markup=False, emoji=False)


def duration(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
