"""`jaxvalues compare`: a study from its file to its results."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rich.console import Console

from jaxvalues.config.writing import write_json
from jaxvalues.errors import ConfigError, short
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import fit_budget, sizes_of
from jaxvalues.study.combined import check_rounds
from jaxvalues.study.files import STUDY, load_study
from jaxvalues.study.plan import make_plan
from jaxvalues.study.results import StudyResults
from jaxvalues.study.run import Share, run_study
from jaxvalues.study.schema import Study
from jaxvalues.study.screen import print_plan, print_results
from jaxvalues.study.single import results_of_folder
from jaxvalues.study.unchanged import check_unchanged

RESULTS = "results.json"
"""In the folder of a study: the figures, intervals and tests."""


def compare(
    study: Study, console: Console, *, share: Share | None = None, only_plan: bool = False
) -> tuple[bool, StudyResults | None]:
    """Run what is not finished of a study, or of a `share` of it, then print and write the results of all that is.

    With `only_plan` the plan is printed, nothing runs and nothing is written. Returns whether everything in the share
    is finished, and the results (None with `only_plan`). Raises ConfigError for a study that cannot be planned,
    UserError where finished runs were made of other data or weights, and Stopped when asked to stop.
    """
    plan = fit_budget(make_plan(study), lambda text: console.print(text, markup=False, highlight=False))
    check_rounds(plan)
    sizes = sizes_of(plan, unknown := {})
    if only_plan:
        print_plan(plan, sizes, unknown, console)
        return True, None
    check_unchanged(plan)
    finished = run_study(plan, share or Share(), console)
    results = analyse(plan, sizes_of(plan) if study.nuisance.keys else sizes)
    write_results(results, study.folder)
    console.print()
    print_results(results, console)
    return finished, results


def write_results(results: StudyResults, folder: Path) -> None:
    """Write the results of a study as JSON into its folder."""
    write_json(folder / RESULTS, results.to_json())


def results_of(folder: str | Path, data_dir: str | Path | None = None) -> StudyResults:
    """The results of what is finished in the folder of a study, a run or an ensemble. Trains nothing.

    `data_dir` is the folder of the data, if it has moved. Raises UserError where the folder holds none of these.
    """
    folder = Path(folder)
    if not (folder / STUDY).is_file():
        return results_of_folder(folder, data_dir)
    moved = () if data_dir is None else (f"data.dir={json.dumps(str(data_dir))}",)
    study = load_study(folder / STUDY, moved).model_copy(update={"output": str(folder)})
    plan = fit_budget(make_plan(study), lambda _: None)
    check_unchanged(plan)
    return analyse(plan, sizes_of(plan))


def parse_share(text: str) -> Share:
    """The share "i/n". Raises ConfigError for another text."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--part is {short(text)}, expected I/N with I from 1 to N, such as 2/8")
    return Share(int(found[1]), int(found[2]))
