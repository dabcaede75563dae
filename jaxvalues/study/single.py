"""The results of one finished run or ensemble, as a study of one system."""

from __future__ import annotations

import json
from pathlib import Path

from jaxvalues.data.held_out import load_parts
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.ensemble.columns import leaves
from jaxvalues.errors import UserError, counted
from jaxvalues.evaluation.coverage import note
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.network import build_network, count
from jaxvalues.study.crossed import interval_of
from jaxvalues.study.reading import read_run, truths_of, why_left_out
from jaxvalues.study.results import StudyResults, SystemResult
from jaxvalues.study.schema import Scientific, Study


def results_of_folder(path: Path, data_dir: str | Path | None = None) -> StudyResults:
    """The results of a run folder or of an ensemble's; `data_dir` is where its data are, if they have moved.

    Raises UserError for a folder that holds no finished run of the task values.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise UserError(f"{path} is a file, expected a folder" if path.exists() else f"{path}: no such folder")
    if not folder.is_finished:
        raise UserError(f"{path} holds no study (study.yaml) and no finished run (scores.json)")
    runs = leaves(folder)
    config = runs[0].config([] if data_dir is None else [f"data.dir={json.dumps(str(data_dir))}"])
    task = RunFolder.finished(runs[0].path).task
    if not task.has_categories:
        raise UserError(f"{path} has data.task {task.name}, but reports are about the 20 value categories")
    parts = load_parts(config.data)
    for split in parts.reported:
        if runs[0].has_other(split):
            raise UserError(
                f"{path} was made with other data than {config.data.dir or config.data.source}: {split.name} differs, "
                "so its scores do not belong to these labels"
            )
    truths = truths_of(parts.reported)
    here = [run for run in runs if run.config().model.endpoint is None]
    weights = [build_network(run.config(), run.hf_config()).abstract_parts() for run in here]
    name = path.resolve().name
    result = read_run(path, {"seed": config.seed}, truths)
    what = "ensemble" if folder.is_ensemble else "run"
    study = Study(
        name=name,
        question=f"What does the {what} {name} find?",
        scientific=Scientific(systems={name: {}}),
        repeated={"seed": (config.seed,)},
        report=tuple(truths) or ("none",),
    )
    system = SystemResult(
        name=name,
        changes={},
        chosen={},
        trials=(),
        edges=(),
        runs=(result,),
        failures=(),
        trained_parameters=sum(count(trainable) for _, trainable in weights),
        frozen_parameters=sum(count(frozen) for frozen, _ in weights),
        training_flops=None,
        intervals={split: interval_of(truth, [result]) for split, truth in truths.items()},
        mean_category_intervals={
            split: interval_of(truth, [result], "mean_category_f1") for split, truth in truths.items()
        },
        variance={},
    )
    kind = f"An ensemble of {counted(len(runs), 'run')}." if folder.is_ensemble else "One run."
    incomplete = note({"held-out": result.held_out, **result.scores})
    return StudyResults(
        study=study,
        digest=config.fingerprint(),
        splits={split: truth.split for split, truth in truths.items()},
        categories=CATEGORIES,
        systems={name: system},
        contrasts=(),
        missing=tuple(f"{one.name}: {why}" for one in parts.reported if (why := why_left_out(one)) is not None),
        notes=(
            f"{kind} Intervals are over conclusions: they say nothing about other seeds.",
            *filter(None, (incomplete,)),
        ),
        environment=folder.environment(),
    )
