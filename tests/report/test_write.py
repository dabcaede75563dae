"""The report of a study: what it says is what was found, and the page needs nothing else."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import stdev
from xml.etree import ElementTree

import pytest
from studies import planned, pretend

from jaxvalues.config import Config
from jaxvalues.report import paper, write_report
from jaxvalues.report.browser import browse
from jaxvalues.report.curves import few_shot, spread
from jaxvalues.report.figures import learning_curves, pictures, time_frontier
from jaxvalues.report.paper import ROWS, paper_row, three_questions
from jaxvalues.report.table import Table, markdown
from jaxvalues.report.tables import best_group, main_table
from jaxvalues.study.analysis import analyse
from jaxvalues.study.budget import Size
from jaxvalues.study.compare import results_of
from jaxvalues.study.reading import config_of
from jaxvalues.study.results import StudyResults
from jaxvalues.study.schema import Scientific, Study
from jaxvalues.study.screen import figure, verdict

HOSTILE = '<script>alert("1")</script> & {{ 7 * 7 }} | \\'
NOTHING = {"runs": (), "trials": (), "intervals": {}, "mean_category_intervals": {}, "variance": {}}
SVG = "{http://www.w3.org/2000/svg}"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def results(folder: Path, names: tuple[str, str, str] = ("strong", "weak", "same"), *overrides: str) -> StudyResults:
    """The results of three systems with these names, two trials and three seeds each."""
    methods = ("full", "bitfit", "head")
    systems = {name: {"tuning.method": method} for name, method in zip(names, methods, strict=True)}
    nuisance = {"keys": {"optimizer.learning_rate": [1e-4, 1e-3]}}
    plan = planned(folder, *overrides, scientific={"systems": systems}, nuisance=nuisance)
    for name in plan.systems:
        for trial in plan.trials(name):
            pretend(trial.config, held_out_noise=trial.config.optimizer.learning_rate * 100)
        for run in plan.runs(name, {"optimizer.learning_rate": 1e-4}):
            pretend(run.config)
    sizes = {name: Size(10 ** (place + 2), 20, 3e9) for place, name in enumerate(plan.systems)}
    return analyse(plan, sizes)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return results(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(found: StudyResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(found, tmp_path_factory.mktemp("report"))


class Outside(HTMLParser):
    """Collects what a page would fetch, and its headings in order."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.levels: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "poster", "data") and value]
        self.fetched += [value for name, value in attrs if tag == "link" and name == "href" and value]
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))


def test_the_page_needs_nothing_else(page: Path) -> None:
    text, parser = page.read_text(encoding="utf-8"), Outside()
    parser.feed(text)
    assert parser.fetched == []
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)
    assert page.stat().st_size < 1_500_000
    assert parser.levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(parser.levels, parser.levels[1:], strict=False))
    assert '<html lang="en">' in text


def test_it_says_what_the_tests_found(page: Path, found: StudyResults) -> None:
    text, plain = page.read_text(encoding="utf-8"), (page.parent / "report.md").read_text(encoding="utf-8")
    for one in found.contrasts:
        assert f"On test: {verdict(one)}" in text
        assert f"On test: {verdict(one)}" in plain
    for system in found.systems.values():
        interval = system.intervals["test"]
        assert f"{figure(interval.estimate)} ({figure(interval.low)}–{figure(interval.high)})" in text
    assert "not decided by these data" in text
    assert "lies on the edge of its range" in text
    rows = list(csv.reader(io.StringIO((page.parent / "tables/contrasts.csv").read_text(encoding="utf-8"))))
    assert [row[0] for row in rows] == ["Contrast", "weak less strong", "same less strong"]
    assert [row[-1] for row in rows] == ["Decided", "yes", "no"]


def test_figures_are_pictures_that_can_be_heard(page: Path) -> None:
    names = {file.stem for file in (page.parent / "figures").glob("*.svg")}
    assert names == {
        "forest-test", "scores-test", "parameters-test", "categories-test", "calibration-test", "circle-test",
        "learning", "trials",
    }  # fmt: skip
    assert names == {file.stem for file in (page.parent / "figures").glob("*.png")}
    for name in names:
        svg = (page.parent / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        spoken = [root.find(f"{{http://www.w3.org/2000/svg}}{tag}") for tag in ("title", "desc")]
        assert root.get("aria-labelledby").split() == [one.get("id") for one in spoken]
        assert all(len(one.text) > 10 for one in spoken)
        assert "currentColor" in svg
        assert len(svg) < 120_000
    ids = re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_the_best_group_is_marked(found: StudyResults) -> None:
    assert best_group(found, "test") == {"strong", "same"}
    assert main_table(found).marked == {0, 2}


def test_the_same_results_are_the_same_bytes(page: Path, found: StudyResults, tmp_path: Path) -> None:
    again = write_report(found, tmp_path)
    for file in page.parent.rglob("*"):
        if file.is_file():
            assert (tmp_path / file.relative_to(page.parent)).read_bytes() == file.read_bytes(), file
    assert again == tmp_path / "report.html"


def test_names_are_no_markup(tmp_path: Path) -> None:
    found = results(tmp_path, (HOSTILE, "a & b", "c"), "repeated.seed=[0,1]")
    text = write_report(found, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "{{ 7 * 7 }}" in text
    for svg in (tmp_path / "figures").glob("*.svg"):
        ElementTree.fromstring(svg.read_text(encoding="utf-8"))


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    found = results(tmp_path, ("_first", "$x$ and $\\y{$", "c"), "repeated.seed=[0,1]")
    write_report(found, tmp_path)
    for figure_name in ("parameters-test", "calibration-test", "trials"):
        svg = (tmp_path / "figures" / f"{figure_name}.svg").read_text(encoding="utf-8")
        words = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
        assert {"_first", "$x$ and $\\y{$", "c"} <= set(words)


def test_what_runs_took_is_a_figure_where_it_is_known(found: StudyResults) -> None:
    assert time_frontier(found, "test") is None
    timed = {
        name: replace(one, runs=tuple(replace(run, seconds=10.0 * (place + 1)) for run in one.runs))
        for place, (name, one) in enumerate(found.systems.items())
    }
    drawn = time_frontier(replace(found, systems=timed), "test")
    best = max(found.systems, key=lambda name: found.systems[name].intervals["test"].estimate)
    on_line = ["strong"] if best == "strong" else ["strong", "same"]
    assert drawn.finding == f"By the estimates, none that takes fewer seconds is as good as {', '.join(on_line)}."


def test_shots_are_an_axis(found: StudyResults) -> None:
    assert few_shot(found, "test") is None
    shots = {"strong": 16, "weak": 1, "same": 4}
    systems = {
        name: replace(one, changes={"tuning.method": "full", "data.shots": shots[name]})
        for name, one in found.systems.items()
    }
    drawn = few_shot(replace(found, systems=systems), "test")
    low, high = (figure(found.systems[name].intervals["test"].estimate) for name in ("weak", "strong"))
    assert drawn.finding == f"From the fewest to the most shots: method full from {low} to {high}."
    assert [row[:2] for row in drawn.table.rows] == [("method full", shots) for shots in ("1", "4", "16")]


def test_the_spread_over_another_repeated_key(found: StudyResults) -> None:
    assert spread(found, "test") is None
    study = found.study.model_copy(update={"repeated": {"seed": (0, 1), "tuning.init": ("a", "b", "c")}})
    one = found.systems["weak"]
    runs = tuple(
        replace(run, repeated={"seed": 0, "tuning.init": init}) for run, init in zip(one.runs, "abc", strict=True)
    )
    drawn = spread(replace(found, study=study, systems={"weak": replace(one, runs=runs)}), "test")
    f1 = [run.scores["test"].official_f1 for run in runs]
    assert [row[:3] for row in drawn.table.rows] == [
        ("weak", f"init {init}", figure(value)) for init, value in zip("abc", f1, strict=True)
    ]
    assert drawn.finding == f"Standard deviation of the means over tuning.init: weak {figure(stdev(f1))}."


def test_runs_without_a_common_evaluation_have_no_curve(found: StudyResults) -> None:
    one = found.systems["weak"]
    runs = (replace(one.runs[0], curve=()), *one.runs[1:])
    rest = learning_curves(replace(found, systems={"weak": replace(one, runs=runs)}))
    assert rest.finding == "At the end: weak .200."
    apart = tuple(
        replace(run, curve=tuple({"step": 2 * at + place, "official_f1": 0.1} for at in (1, 2)))
        for place, run in enumerate(one.runs[:2])
    )
    assert learning_curves(replace(found, systems={"weak": replace(one, runs=apart)})) is None


def test_texts_are_there_only_where_they_are_asked_for(page: Path, found: StudyResults, tmp_path: Path) -> None:
    premise = found.splits["test"].arguments[0].premise
    assert premise not in page.read_text(encoding="utf-8")
    text = write_report(found, tmp_path, with_texts=True).read_text(encoding="utf-8")
    argument = browse(found, with_texts=True).rows[0]
    assert f'<th scope="row">{html.escape(argument["id"] + ": " + argument["text"], quote=False)}</th>' in text
    assert "CC BY-SA 4.0" in text


def test_one_run_and_nothing_at_all_make_a_smaller_page(found: StudyResults, tmp_path: Path) -> None:
    empty = replace(
        found,
        systems={
            name: replace(one, runs=(), trials=(), intervals={}, variance={}) for name, one in found.systems.items()
        },
        contrasts=(),
    )
    assert "Nothing can be compared yet." in write_report(empty, tmp_path / "empty").read_text(encoding="utf-8")
    run = found.systems["weak"].runs[0].folder
    shutil.copytree(run, tmp_path / "one")
    (tmp_path / "one/model").mkdir()
    shutil.copy(Path(__file__).parents[1] / "report/model.json", tmp_path / "one/model/config.json")
    single = results_of(tmp_path / "one")
    text = write_report(single, tmp_path / "page").read_text(encoding="utf-8")
    assert single.systems["one"].intervals["test"].estimate == found.systems["weak"].runs[0].scores["test"].official_f1
    assert "What does the run one find?" in text
    assert "One run. Intervals are over conclusions" in text


def test_rows_of_the_study_are_its_own_configs_alone() -> None:
    def study(**systems: dict[str, object]) -> Study:
        return Study(question="?", scientific=Scientific(systems=systems))

    own = study(a={"base": "configs/paper/roberta-cls.yaml"}, b={"base": "configs/paper/roberta-cls.yaml", "seed": 1})
    assert paper_row(own, "a") == "RoBERTa-CLS"
    assert paper_row(own, "b") is None
    assert ROWS["RoBERTa-CLS"] == 0.54


def test_three_questions_have_an_answer_each(found: StudyResults) -> None:
    first, second, third = (answer for _, answer in three_questions(found))
    assert "no contrast of this study compares a fine-tuned with a prompted system" in first
    assert re.search(r"the best system, (strong|same), has an official F1 of \.\d+ .* above the \.2", second)
    assert third == "Not decided by these data: no aligned language model was run."


def test_an_aligned_language_model_answers_the_third_question(
    found: StudyResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak, asks = found.systems["weak"].runs[0].folder.parent, {"kind": "answer", "chat": True}
    chat = Config.model_validate({"formulation": asks, "tuning": {"method": "none"}, "model": {"path": "some/model"}})
    monkeypatch.setattr(paper, "config_of", lambda run: chat if run.parent == weak else config_of(run))
    third = three_questions(found)[2][1]
    assert "On test: strong is better than weak by" in third
    assert "same" not in third
    alone = three_questions(replace(found, contrasts=()))[2][1]
    assert re.search(r"no contrast .* the best of them, weak, has an official F1 of \.\d+", alone)


def test_tables_in_other_formats() -> None:
    table = Table("t", "A & B_c", ("x", "y"), (("a|b", "1 %"), ("c", "−.1")), frozenset({1}))
    assert table.to_markdown() == "| x | y |\n| --- | ---: |\n| a\\|b | 1 % |\n| **c** | **−.1** |"
    assert r"\caption{A \& B\_c}" in table.to_latex()
    assert "a|b & 1 \\% \\\\" in table.to_latex()
    assert "\\textbf{c} & \\textbf{$-$.1}" in table.to_latex()
    assert table.to_csv() == "x,y\na|b,1 %\nc,−.1\n"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_it_without_an_error(page: Path, tmp_path: Path) -> None:
    common = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--v=0",
    ]
    for width in (400, 1400):
        shot = tmp_path / f"{width}.png"
        done = subprocess.run(
            [*common, f"--window-size={width},1600", f"--screenshot={shot}", page.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert "CONSOLE" not in done.stderr
        assert shot.stat().st_size > 20_000
    dom = subprocess.run(
        [*common, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout  # fmt: skip
    assert "1–25 of " in dom  # the argument browser ran


def test_more_systems_than_colours_are_drawn_in_part_and_the_figure_says_so(found: StudyResults) -> None:
    strong = found.systems["strong"]
    many = {f"system {n}": replace(strong, name=f"system {n}", trained_parameters=10 * n + 10) for n in range(11)}
    (drawn,) = [one for one in pictures(replace(found, systems=many)) if one.name == "parameters-test"]
    assert "the best 8 of 11 systems" in drawn.finding


def test_the_figures_show_the_metric_of_the_study(found: StudyResults) -> None:
    other = replace(found, study=found.study.model_copy(update={"metric": "mean_category_f1"}))
    drawn = {one.name: one for one in pictures(other)}
    best = max(one.mean_category_intervals["test"].estimate for one in other.systems.values())
    assert drawn["scores-test"].title == "Mean category F1 on test"
    assert figure(best) in drawn["scores-test"].finding


def test_names_are_plain_text_in_markdown() -> None:
    assert markdown("a_b *c* <i> | `d`\n[e]") == "a\\_b \\*c\\* &lt;i> \\| \\`d\\` \\[e\\]"
