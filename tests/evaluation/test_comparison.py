"""Several run files: their names, intervals, differences and p, from files of any system."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxvalues.cli import app
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.comparison import compare_files, run_names
from jaxvalues.evaluation.scoring import score_files

C = len(CATEGORIES)
IDS = tuple(f"A{i:04d}" for i in range(240))
RNG = np.random.default_rng(0)
CONCLUSIONS = np.sort(RNG.integers(0, 30, len(IDS)))
TRUTH = RNG.random((len(IDS), C)) < RNG.uniform(0.05, 0.4, (30, C))[CONCLUSIONS]


def labels(path: Path, cells: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ("\t".join((i, *map(str, row))) for i, row in zip(IDS, np.asarray(cells, int).tolist(), strict=False))
    path.write_text("\n".join(("\t".join(("Argument ID", *CATEGORIES)), *rows)) + "\n", encoding="utf-8")
    return path


def arguments(path: Path, conclusions: list[str], ids: tuple[str, ...] = IDS) -> Path:
    rows = (f"{i}\t{text}\tagainst\tBecause of {i}." for i, text in zip(ids, conclusions, strict=True))
    path.write_text("\n".join(("Argument ID\tConclusion\tStance\tPremise", *rows)) + "\n", encoding="utf-8")
    return path


def noisy(share: float, seed: int) -> np.ndarray:
    """The truth with this share of all cells turned over."""
    return TRUTH ^ (np.random.default_rng(seed).random(TRUTH.shape) < share)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "truth": labels(tmp_path / "labels.tsv", TRUTH),
        "good": labels(tmp_path / "good.tsv", noisy(0.03, 99)),
        "same": labels(tmp_path / "same.tsv", noisy(0.1, 100)),
        "bad": labels(tmp_path / "bad.tsv", noisy(0.1, 101)),
        "arguments": arguments(tmp_path / "arguments.tsv", [f"We should do {c}." for c in CONCLUSIONS]),
    }


@pytest.fixture
def score(files: dict[str, Path]) -> Callable[..., dict]:
    def call(*runs: str, **options: str) -> dict:
        words = [word for run in runs for word in ("--run", str(files[run]))]
        words += [word for name, file in options.items() for word in (f"--{name}", str(files[file]))]
        result = CliRunner().invoke(app, ["score", "--truth", str(files["truth"]), *words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


def test_the_json_of_several_runs(files: dict[str, Path], score: Callable[..., dict]) -> None:
    found = score("good", "same", "bad", arguments="arguments")
    assert list(found) == ["runs", "pairs", "resampled"]
    assert found["resampled"] == "conclusions"
    assert list(found["runs"]) == ["good", "same", "bad"]
    for name, run in found["runs"].items():
        alone = score_files(files["truth"], files[name]).to_json()
        assert {key: run[key] for key in alone} == alone
        assert set(run) - set(alone) == {"se", "interval"}
        low, high = run["interval"]
        assert 0 < low < run["official_f1"] < high < 1
        assert 0 < run["se"] < 0.1
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [("good", "same"), ("good", "bad"), ("same", "bad")]
    for pair in found["pairs"]:
        assert list(pair) == ["a", "b", "difference", "se", "interval", "p"]
        f1 = [found["runs"][pair[side]]["official_f1"] for side in "ab"]
        assert pair["difference"] == pytest.approx(f1[0] - f1[1])
        assert pair["interval"][0] < pair["difference"] < pair["interval"][1]


def test_a_huge_difference_is_found_and_none_is_not(score: Callable[..., dict]) -> None:
    huge, _, none = score("good", "same", "bad", arguments="arguments")["pairs"]
    assert huge["p"] == pytest.approx(1 / 4001)
    assert huge["interval"][0] > 0
    assert none["p"] > 0.05
    assert none["interval"][0] < 0 < none["interval"][1]


def test_swapping_a_and_b_turns_signs_and_keeps_p(score: Callable[..., dict]) -> None:
    (there,) = score("same", "bad", arguments="arguments")["pairs"]
    (back,) = score("bad", "same", arguments="arguments")["pairs"]
    assert (back["a"], back["b"], back["p"]) == (there["b"], there["a"], there["p"])
    assert back["difference"] == pytest.approx(-there["difference"])
    assert back["interval"] == pytest.approx([-there["interval"][1], -there["interval"][0]])
    assert back["se"] == pytest.approx(there["se"])


def test_without_arguments_every_argument_is_alone_and_a_note_says_so(files: dict[str, Path]) -> None:
    runs = [files["good"], files["bad"]]
    alone, together = (
        compare_files(files["truth"], runs),
        compare_files(files["truth"], runs, arguments=files["arguments"]),
    )
    assert (alone.resampled, alone.groups) == ("arguments", 240)
    assert (together.resampled, together.groups) == ("conclusions", len(set(CONCLUSIONS)))
    assert "give --arguments" in alone.notes[-1]
    assert "resample 30 conclusions" in together.notes[-1]
    assert alone.runs["good"].scores == together.runs["good"].scores
    assert alone.pairs[0].interval != together.pairs[0].interval


def test_conclusions_are_compared_without_case_and_punctuation(files: dict[str, Path], tmp_path: Path) -> None:
    spelled = [
        f"{'  we SHOULD' if i % 2 else 'We should'} do {c}{'!' if i % 3 else ''}" for i, c in enumerate(CONCLUSIONS)
    ]
    other = arguments(tmp_path / "spelled.tsv", spelled)
    runs = [files["good"], files["bad"]]
    comparisons = [
        compare_files(files["truth"], runs, arguments=file).to_json() for file in (files["arguments"], other)
    ]
    assert comparisons[0]["pairs"][0]["difference"] == comparisons[1]["pairs"][0]["difference"]
    assert compare_files(files["truth"], runs, arguments=other).groups == len(set(CONCLUSIONS))


def test_the_same_file_of_arguments_may_hold_others_in_any_order(files: dict[str, Path], tmp_path: Path) -> None:
    order = np.random.default_rng(4).permutation(len(IDS))
    more = arguments(
        tmp_path / "more.tsv",
        ["Something else", *(f"We should do {CONCLUSIONS[i]}." for i in order)],
        ("B1", *(IDS[i] for i in order)),
    )
    runs = [files["good"], files["bad"]]
    assert (
        compare_files(files["truth"], runs, arguments=more).to_json()
        == compare_files(files["truth"], runs, arguments=files["arguments"]).to_json()
    )


def test_one_run_keeps_its_keys(files: dict[str, Path], score: Callable[..., dict]) -> None:
    plain = score("good")
    assert plain == score_files(files["truth"], files["good"]).to_json()
    assert "se" not in plain
    with_interval = score("good", arguments="arguments")
    assert list(with_interval) == [*plain, "se", "interval"]
    assert {key: with_interval[key] for key in plain} == plain
    assert with_interval["interval"] == score("good", "bad", arguments="arguments")["runs"]["good"]["interval"]


def test_tables_are_printed(files: dict[str, Path]) -> None:
    words = ["--truth", files["truth"], "--arguments", files["arguments"]]
    several = CliRunner().invoke(app, ["score", *map(str, [*words, "--run", files["good"], "--run", files["bad"]])])
    assert several.exit_code == 0, several.output
    assert "95 % interval" in several.output
    assert ".0002" in several.output
    assert "resample 30 conclusions" in " ".join(several.output.split())
    one = CliRunner().invoke(app, ["score", *map(str, [*words, "--run", files["good"]])])
    assert "by resampling 30 conclusions" in " ".join(one.output.split())


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_names(["a/b/p.tsv", "a/q.tsv"]) == ["p", "q"]
    assert run_names(["a/p.tsv", "b/p.tsv", "b/q.tsv"]) == ["a/p", "b/p", "q"]
    assert run_names(["x/a/p.tsv", "y/a/p.tsv", "y/b/p.tsv"]) == ["x/a/p", "y/a/p", "b/p"]
    assert run_names(["p.v1.tsv", "p.v2.tsv", "p.txt"]) == ["p.v1", "p.v2", "p.txt"]
    monkeypatch.chdir(tmp_path)
    assert run_names(["p.tsv", "b/p.tsv"]) == [f"{tmp_path.name}/p", "b/p"]


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (["a/p.tsv", "a/p.tsv"], "--run a/p.tsv: the file is given twice"),
        (["a/p.tsv", "b/../a/p.tsv"], "--run a/p.tsv: the file is given twice"),
        (["a/p.tsv", "a/p"], "the same name without"),
    ],
)
def test_files_that_are_one_are_refused(runs: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_names(runs)


def test_arguments_of_another_split_get_one_sentence(files: dict[str, Path], tmp_path: Path) -> None:
    other = arguments(tmp_path / "other.tsv", ["We should do 1."] * 238, IDS[2:])
    with pytest.raises(
        UserError, match=r"other.tsv: 2 of the 240 arguments of .*labels.tsv are not in it: A0000, A0001"
    ):
        compare_files(files["truth"], [files["good"], files["bad"]], arguments=other)
    one = arguments(tmp_path / "one.tsv", ["We should do 1."] * 240)
    with pytest.raises(UserError, match="have one conclusion, expected at least two"):
        score_files(files["truth"], files["good"], arguments=one)
    swapped = [files["good"], files["arguments"]]
    with pytest.raises(UserError, match=r"arguments.tsv, line 1"):
        compare_files(files["truth"], swapped)


def test_one_argument_is_too_few(tmp_path: Path) -> None:
    files = [labels(tmp_path / f"{name}.tsv", TRUTH[:1]) for name in ("truth", "a", "b")]
    with pytest.raises(UserError, match=r"truth.tsv has one argument, expected at least two to compare runs"):
        compare_files(files[0], files[1:])
