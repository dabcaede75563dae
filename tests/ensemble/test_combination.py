"""Finished runs combined: against plain numpy, from arguments no run was trained on, and with a sentence otherwise."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up import config_of, finish, folds
from rich.console import Console
from runs import command
from scipy.special import logit

from jaxvalues.data.held_out import cut_folds, load_parts
from jaxvalues.data.loading import load_split, sample_folder
from jaxvalues.data.task import VALUES
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.ensemble import combine_runs
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.combine import cross_fit, fit_stacking, mean
from jaxvalues.evaluation.coverage import for_tuning, read_missing, score_answered
from jaxvalues.evaluation.decision import read_decision, sigmoid
from jaxvalues.evaluation.official import score
from jaxvalues.evaluation.predictions import read_logits, read_predictions
from jaxvalues.evaluation.thresholds import decide, tune_global, tune_per_category
from jaxvalues.run.folder import RunFolder

WHOLE = load_split("training", source="sample")
TEST = load_split("test", source="sample")


def table(folder: Path, part: str) -> dict[str, np.ndarray]:
    """A file of logits as {argument: logits [20]}."""
    read = read_logits(folder / f"logits-{part}.tsv")
    return dict(zip(read.ids, read.values, strict=True))


def probabilities(folder: Path, part: str) -> dict[str, np.ndarray]:
    """A file of probabilities as {argument: probabilities [20]}."""
    read = read_predictions(folder / f"probabilities-{part}.tsv")
    return dict(zip(read.ids, read.probabilities, strict=True))


def held_out(folders: list[Path]) -> dict[str, np.ndarray]:
    """A system's held-out predictions, whichever run they are of."""
    return {id: row for folder in folders for id, row in table(folder, "held_out").items()}


def labels_of(ids: list[str]) -> np.ndarray:
    row = {id: number for number, id in enumerate(WHOLE.ids)}
    return WHOLE.labels[[row[id] for id in ids]]


def quietly(runs: list[Path], out: Path, **options: str) -> str:
    """Combine; what was printed, in one line."""
    screen = Console(file=io.StringIO(), width=120)
    combine_runs(runs, out, console=screen, **options)
    return " ".join(screen.file.getvalue().split())


@pytest.fixture
def two(tmp_path: Path) -> list[list[Path]]:
    """Two systems of three folds each."""
    return [folds(tmp_path, "a", 3), folds(tmp_path, "b", 3)]


def test_the_mean_against_numpy(two: list[list[Path]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = quietly([*two[1], *reversed(two[0])], out)  # in any order

    combined = table(out, "held_out")
    assert list(combined) == list(WHOLE.ids)
    systems = [held_out(system) for system in two]
    for id, row in combined.items():
        mean_of_all = np.mean([sigmoid(system[id]) for system in systems], axis=0)
        np.testing.assert_allclose(sigmoid(row), mean_of_all, rtol=1e-6)
    for split in ("validation", "test"):
        of_all = [probabilities(folder, split) for system in two for folder in system]
        for id, row in probabilities(out, split).items():
            np.testing.assert_allclose(row, np.mean([one[id] for one in of_all], axis=0), rtol=1e-5)

    decision = read_decision(out)
    thresholds, how = decision.thresholds, decision.how
    assert (thresholds == tune_global(WHOLE.labels, np.stack([*combined.values()]))).all()
    assert how == "mean of 2 systems (6 runs), one threshold tuned on 230 held-out arguments"
    assert how in printed
    predicted = read_predictions(out / "predictions-test.tsv").probabilities
    assert np.array_equal(predicted, decide(np.stack([*table(out, "test").values()]), thresholds))
    scores = RunFolder(out).scores()
    assert scores["test"] == score(TEST.labels, predicted.astype(int))
    assert set(scores) == {"validation", "test"}
    assert RunFolder(out).held_out_scores() == score(WHOLE.labels, decide(np.stack([*combined.values()]), thresholds))


def test_what_a_member_has_not_answered_is_missing(tmp_path: Path) -> None:
    runs = [
        finish(tmp_path / "a", config_of("a"), draw=1, missing=0.1),
        finish(tmp_path / "b", config_of("b"), draw=2, missing=0.1),
    ]
    out = tmp_path / "out"
    assert "INCOMPLETE" in quietly(runs, out)
    absent = {
        part: np.any(
            [read_missing(run / f"missing-{part}.tsv", [*table(run, part)], CATEGORIES) for run in runs], axis=0
        )
        for part in ("held_out", "test")
    }
    for part, missing in absent.items():
        assert 0.15 < missing.mean() < 0.23
        assert (read_missing(out / f"missing-{part}.tsv", [*table(out, part)], CATEGORIES) == missing).all()
    folder = RunFolder(out)
    decided = decide(np.stack([*table(out, "test").values()]), read_decision(out).thresholds)
    assert folder.scores()["test"] == score_answered(VALUES, TEST.labels, decided, absent["test"])
    assert folder.scores()["test"].coverage == 1 - absent["test"].mean()
    whole = np.stack([*table(out, "held_out").values()])
    tuned = tune_global(*for_tuning(load_parts(config_of("a").data).held_out, whole, absent["held_out"]))
    assert (read_decision(out).thresholds == tuned).all()
    assert "INCOMPLETE" in quietly([out, finish(tmp_path / "c", config_of("c"))], tmp_path / "more")
    (runs[0] / "missing-test.tsv").write_text("Argument ID\tCategory\nnobody\tStimulation\n", encoding="utf-8")
    (runs[0] / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"missing-test\.tsv, line 2: 'nobody\\tStimulation' is no argument of the"):
        quietly(runs, tmp_path / "again")


def test_folders_of_earlier_versions_have_probabilities_alone(two: list[list[Path]], tmp_path: Path) -> None:
    quietly(two[0] + two[1], tmp_path / "new")
    for folder in two[0] + two[1]:
        for part in ("held_out", "validation", "test"):
            (folder / f"logits-{part}.tsv").unlink()
    quietly(two[0] + two[1], tmp_path / "old")
    for part in ("held_out", "test"):
        new, old = ([*table(tmp_path / name, part).values()] for name in ("new", "old"))
        np.testing.assert_allclose(old, new, rtol=1e-3, atol=1e-4)


def test_a_mean_of_systems_with_far_thresholds_says_so(tmp_path: Path) -> None:
    runs = [finish(tmp_path / name, config_of(name, held_out=0.3), bias=bias) for name, bias in (("a", 0), ("b", -6))]
    assert "the thresholds of b (probability 0.00091 (logit -7.00)) and a (probability 0.27" in quietly(
        runs, tmp_path / "mean"
    )
    assert "lie far apart" not in quietly(runs, tmp_path / "stack", method="stack")
    near = [finish(tmp_path / name, config_of(name, held_out=0.3)) for name in "cd"]
    assert "lie far apart" not in quietly(near, tmp_path / "near")


@pytest.mark.parametrize("threshold", ["tuned", "tuned_per_category"])
def test_a_stack_does_not_see_a_constant_in_the_logits_of_a_system(threshold: str, tmp_path: Path) -> None:
    decision, predicted = {"threshold": threshold}, []
    for bias in (0, -9):
        runs = [
            finish(tmp_path / f"{bias}{name}", config_of(name, decision=decision, held_out=0.5), bias=shift, draw=draw)
            for draw, (name, shift) in enumerate((("a", 0), ("b", bias)))
        ]
        quietly(runs, tmp_path / f"{bias}", method="stack")
        predicted.append((tmp_path / f"{bias}/predictions-test.tsv").read_text())
    assert predicted[0] == predicted[1]


def test_the_table_of_members(two: list[list[Path]], tmp_path: Path) -> None:
    seeds = folds(tmp_path, "a", 3, seed=1)
    printed = quietly([*two[0], *two[1], *seeds], tmp_path / "out")
    values = [RunFolder(folder).scores()["test"].official_f1 for folder in two[0] + seeds]
    row = printed[printed.index(" a ") :].split(" b ")[0].split()
    assert row[:2] == ["a", "6"]
    assert row[-3:] == [f"{np.mean(values):.3f}"[1:], "±", f"{np.std(values, ddof=1):.3f}"[1:]]
    assert f"ensemble 9 {RunFolder(tmp_path / 'out').held_out_scores().official_f1:.3f}".replace(" 0.", " .") in printed


@pytest.mark.slow
def test_a_stack_is_fitted_on_all_and_tuned_on_cross_fitted_predictions(two: list[list[Path]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    quietly(two[0] + two[1], out, method="stack")
    columns = np.stack([[held_out(system)[id] for id in WHOLE.ids] for system in two])
    crossed = cross_fit(columns, WHOLE.labels, cut_folds(WHOLE, 5, "conclusion"))
    assert np.array_equal(np.stack([*table(out, "held_out").values()]), crossed)
    assert (read_decision(out).thresholds == tune_global(WHOLE.labels, crossed)).all()

    stack = fit_stacking(columns, WHOLE.labels)
    means = np.stack([mean(np.stack([[*table(folder, "test").values()] for folder in system])) for system in two])
    np.testing.assert_allclose(np.stack([*table(out, "test").values()]), stack(means), rtol=1e-5)
    written = json.loads((out / "ensemble.json").read_text())["stack"]
    assert written["centre"] == stack.centre.tolist()
    assert [one["bias"] for one in written["categories"].values()] == stack.bias.tolist()
    assert [one["weights"] for one in written["categories"].values()] == stack.weights.tolist()


MIXTURES = {
    "the same fraction": lambda place: [
        [finish(place / f"a{seed}", config_of("a", seed, held_out=0.3), draw=seed)] for seed in range(3)
    ],
    "folds and a fraction": lambda place: [
        folds(place, "a", 3),
        [finish(place / "b", config_of("b", held_out=0.3, held_out_by="argument"))],
    ],
    "some folds only": lambda place: [folds(place, "a", 4, only=(0, 2, 3)), folds(place, "b", 3, only=(1, 2))],
    "folds of other cuts": lambda place: [folds(place, "a", 3), folds(place, "b", 5, held_out_seed=3)],
    "another split": lambda place: [
        [finish(place / f"a{seed}", config_of("a", seed, held_out="validation", report=["test"]), draw=seed)]
        for seed in range(2)
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mean", "stack"])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_nothing_is_tuned_on_what_a_run_was_trained_on(mixture: str, method: str, tmp_path: Path) -> None:
    systems = MIXTURES[mixture](tmp_path)
    printed = quietly([folder for system in systems for folder in system], tmp_path / "out", method=method)
    combined = table(tmp_path / "out", "held_out")
    parts = {folder: load_parts(RunFolder(folder).config().data) for system in systems for folder in system}

    # Each argument has, from every system, exactly the prediction of a run that was not trained on it.
    every = {id for one in parts.values() for id in one.held_out.ids}
    for id in every:
        sources = [[folder for folder in system if id in parts[folder].held_out.ids] for system in systems]
        assert all(id not in parts[folder].training.ids for system in sources for folder in system)
        assert (id in combined) == all(len(system) == 1 for system in sources)
        if id in combined and method == "mean":
            rows = [table(folder, "held_out")[id] for (folder,) in sources]
            np.testing.assert_allclose(sigmoid(combined[id]), np.mean([*map(sigmoid, rows)], axis=0), rtol=1e-5)
    reported = {id for one in parts.values() for split in one.reported for id in split.ids}
    assert len(combined) > 0
    assert not combined.keys() & reported
    assert f"tuned on {len(combined)} held-out arguments" in read_decision(tmp_path / "out").how
    mixed = len({len(held_out(system)) for system in systems} | {len(combined)}) > 1
    assert ("the systems hold out different arguments" in printed) == mixed
    assert (f"tuned on the {len(combined)} that all of them hold out" in printed) == mixed


def test_predictions_that_not_every_system_has_decide_nothing(tmp_path: Path) -> None:
    runs = [*folds(tmp_path, "a", 3), finish(tmp_path / "b", config_of("b", held_out=0.3))]
    quietly(runs, tmp_path / "before", method="stack")
    shared = table(tmp_path / "before", "held_out")
    for run in runs[:3]:
        lines = (run / "logits-held_out.tsv").read_text().splitlines()
        changed = [
            line if line.split("\t")[0] in {*shared, "Argument ID"} else "\t".join([line.split("\t")[0]] + 20 * ["0.5"])
            for line in lines
        ]
        assert changed != lines
        (run / "logits-held_out.tsv").write_text("\n".join(changed) + "\n")
        (run / "manifest.json").unlink()  # which would find the change
    quietly(runs, tmp_path / "after", method="stack")
    for name in ("thresholds.json", "probabilities-test.tsv", "probabilities-held_out.tsv", "scores.json"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_decisions_are_made_as_the_first_run_says(tmp_path: Path) -> None:
    first = finish(tmp_path / "a", config_of("a", decision={"threshold": "tuned_per_category"}, held_out=0.5))
    second = finish(tmp_path / "b", config_of("b", decision={"threshold": "fixed", "value": 0.4}, held_out=0.5), draw=1)
    quietly([first, second], tmp_path / "per-category")
    combined = table(tmp_path / "per-category", "held_out")
    expected = tune_per_category(labels_of([*combined]), np.stack([*combined.values()]))
    assert np.array_equal(read_decision(tmp_path / "per-category").thresholds, expected)
    quietly([second, first], tmp_path / "fixed")
    assert set(read_decision(tmp_path / "fixed").thresholds) == {logit(0.4)}
    assert read_decision(tmp_path / "fixed").how == "mean of 2 systems (2 runs), fixed threshold 0.4"
    third = finish(tmp_path / "c", config_of("c", held_out=0.5), draw=2)
    quietly([tmp_path / "fixed", third], tmp_path / "nested")
    assert read_decision(tmp_path / "nested").how == "mean of 2 systems (3 runs), fixed threshold 0.4"


def test_an_ensemble_is_one_system_of_another(two: list[list[Path]], tmp_path: Path) -> None:
    quietly(two[0] + two[1], tmp_path / "inner")
    single = finish(tmp_path / "c", config_of("c", held_out=0.5), draw=9)
    printed = quietly([single, tmp_path / "inner"], tmp_path / "outer/deep")
    inner, outer = table(tmp_path / "inner", "test"), table(tmp_path / "outer/deep", "test")
    for id, row in table(single, "test").items():
        np.testing.assert_allclose(sigmoid(outer[id]), (sigmoid(row) + sigmoid(inner[id])) / 2, rtol=1e-5)
    assert set(table(tmp_path / "outer/deep", "held_out")) == set(table(single, "held_out"))
    assert "mean of 2 systems (7 runs)" in printed
    # Folders are named relative to the ensemble's, so that all can move together.
    shutil.copytree(tmp_path, tmp_path.with_name("moved"))
    quietly([tmp_path.with_name("moved") / "outer/deep", tmp_path.with_name("moved") / "c"], tmp_path / "again")


def test_combining_anew_replaces_the_combination(two: list[list[Path]], tmp_path: Path) -> None:
    quietly(two[0], tmp_path / "out")
    quietly(two[1], tmp_path / "fresh")
    quietly(two[1], tmp_path / "out")
    for name in ("thresholds.json", "probabilities-test.tsv", "scores.json", "ensemble.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A copy of the sample in which one label of the test split is another one."""
    with sample_folder() as sample:
        shutil.copytree(sample, tmp_path / "elsewhere")
    labels = tmp_path / "elsewhere/labels-test.tsv"
    lines = labels.read_text().split("\n")
    lines[1] = lines[1].replace("\t0", "\t1", 1)
    labels.write_text("\n".join(lines))
    return tmp_path / "elsewhere"


def test_the_data_can_lie_elsewhere(two: list[list[Path]], elsewhere: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a-seed0-fold0 was trained with other data than .*: the part test differs; give"
    ):
        quietly(two[0], tmp_path / "out", dir=elsewhere)
    with sample_folder() as sample:
        quietly(two[0], tmp_path / "out", dir=sample)
    assert RunFolder(tmp_path / "out").is_finished


def test_runs_of_other_data_are_refused(two: list[list[Path]], elsewhere: Path, tmp_path: Path) -> None:
    other = finish(tmp_path / "c", config_of("c", dir=str(elsewhere)))
    with pytest.raises(ConfigError, match=r"a-seed0-fold0 and .*c read different data: their split test differs"):
        quietly([*two[0], other], tmp_path / "out")


def wrong(place: Path, two: list[list[Path]]) -> dict[str, tuple[list[object], int, str]]:
    """Words of `jaxvalues ensemble`, the exit code, and what is said."""
    (a0, a1, _), (b0, *_) = two
    out = place / "out"
    unfinished = place / "unfinished"
    shutil.copytree(a0, unfinished)
    (unfinished / "scores.json").unlink()
    old = place / "old"
    shutil.copytree(a0, old)
    for kind in ("logits", "probabilities"):
        (old / f"{kind}-held_out.tsv").unlink()
    shutil.copytree(a0, place / "copy")
    short = place / "short"
    shutil.copytree(a0, short)
    lines = (short / "logits-test.tsv").read_text().splitlines()
    (short / "logits-test.tsv").write_text("\n".join(lines[:-1]) + "\n")
    (short / "manifest.json").unlink()  # which would find the change
    strange = place / "strange"
    shutil.copytree(a0, strange)
    (strange / "logits-held_out.tsv").write_text((a1 / "logits-held_out.tsv").read_text())
    (strange / "manifest.json").unlink()
    reports = finish(place / "reports", config_of("c", report=["test"]))
    on_validation = finish(place / "on-validation", config_of("d", held_out="validation", report=["test"]))
    quietly(two[0], place / "broken")
    (place / "broken/scores.json").unlink()
    return {
        "one run": ([a0, "--out", out], 2, "an ensemble needs at least two runs"),
        "no out": ([a0, a1], 2, "--out"),
        "no such method": ([a0, a1, "--out", out, "--method", "max"], 2, "max"),
        "no run": ([a0, place / "nothing", "--out", out], 1, "nothing holds no finished run (no scores.json)"),
        "not finished": ([a0, unfinished, "--out", out], 1, "unfinished holds no finished run"),
        "ensemble not finished": ([a0, place / "broken", "--out", out], 1, "holds an ensemble that is not finished"),
        "no held-out predictions": ([old, b0, "--out", out], 1, "old has no logits-held_out.tsv"),
        "twice": ([a0, b0, a0, "--out", out], 2, "a-seed0-fold0 is given twice"),
        "a copy": ([a0, place / "copy", "--out", out], 2, "are the same run: an ensemble needs runs that differ"),
        "other splits": ([a0, reports, "--out", out], 2, "reports validation, test, but"),
        "nothing shared": ([reports, on_validation, "--out", out], 2, "no argument is held out by all of c-seed0, d-s"),
        "folds that do not meet": ([a0, two[1][1], "--out", out], 2, "no argument is held out by all of a-seed0, b-s"),
        "rows missing": ([short, a1, "--out", out], 1, "logits-test.tsv does not have the arguments of the"),
        "rows of another fold": ([strange, b0, "--out", out], 1, "which it does not hold out"),
        "out is a run": ([a0, a1, "--out", b0], 2, "b-seed0-fold0 holds a single run: give the ensemble another"),
        "out is an input": ([a0, place / "broken", "--out", place / "broken"], 2, "broken is given twice"),
        "out is a file": ([a0, a1, "--out", a0 / "config.yaml"], 1, "config.yaml is no folder"),
        "data elsewhere": ([a0, a1, "--out", out, "--dir", place / "none"], 1, "none: no such folder"),
    }


def test_every_wrong_use_gets_a_sentence(two: list[list[Path]], tmp_path: Path) -> None:
    for case, (words, exit_code, sentence) in wrong(tmp_path, two).items():
        code, _, err = command("ensemble", *words)
        assert code == exit_code, (case, err)
        assert sentence in err, case
        assert "Traceback" not in err, case
        if not err.startswith("Usage"):
            assert err.startswith("jaxvalues: "), (case, err)
            assert err.count("\n") == 1, (case, err)
        assert not (tmp_path / "out").exists(), case


def test_a_stack_needs_conclusions_to_cross_fit_on(tmp_path: Path) -> None:
    few = [finish(tmp_path / name, config_of(name, held_out=0.05)) for name in "ab"]
    conclusions = {a.conclusion for a in load_parts(config_of(held_out=0.05).data).held_out.arguments}
    assert len(conclusions) < 5
    with pytest.raises(ConfigError, match=f"at least 5 conclusions, but there are {len(conclusions)}: use the method"):
        quietly(few, tmp_path / "out", method="stack")
    quietly(few, tmp_path / "out")


def test_the_command_line_combines(two: list[list[Path]], tmp_path: Path) -> None:
    code, out, err = command("ensemble", *two[0], *two[1], "--out", tmp_path / "out", "--method", "stack")
    assert (code, err) == (0, "")
    assert "stack of 2 systems (6 runs), one threshold tuned on 230 held-out arguments" in out
    assert "Universalism: nature" in out
    parts = ("held_out", "validation", "test")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "ensemble.json", "environment.json", "thresholds.json", "scores.json", "manifest.json",
        *(f"{kind}-{part}.tsv" for kind in ("probabilities", "logits", "predictions") for part in parts),
    }  # fmt: skip
    with sample_folder() as sample:
        code, out, _ = command("score", "--truth", sample / "labels-test.tsv", "--json", "--run",
                               tmp_path / "out/probabilities-test.tsv")  # fmt: skip
    assert code == 0
    assert json.loads(out) == RunFolder(tmp_path / "out").scores()["test"].to_json()


def test_an_ensemble_is_no_single_run(two: list[list[Path]], tmp_path: Path) -> None:
    quietly(two[0], tmp_path / "out")
    code, _, err = command("predict", tmp_path / "out", "--split", "test")
    assert code == 1
    assert err == f"jaxvalues: {tmp_path / 'out'} holds an ensemble, not one run; ensemble.json there names its runs\n"
