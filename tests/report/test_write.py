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
from xml.etree import ElementTree

import pytest
from reports import results

from jaxvalues.report import write_report
from jaxvalues.report.browser import browse
from jaxvalues.study.compare import results_of
from jaxvalues.study.results import StudyResults
from jaxvalues.study.screen import figure, verdict

HOSTILE = '<script>alert("1")</script> & {{ 7 * 7 }} | \\'
NOTHING = {"runs": (), "trials": (), "intervals": {}, "mean_category_intervals": {}, "variance": {}}
SVG = "{http://www.w3.org/2000/svg}"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


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
    assert [row[0] for row in rows] == ["Contrast", "weak minus strong", "same minus strong"]
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


def test_the_same_results_are_the_same_bytes(page: Path, found: StudyResults, tmp_path: Path) -> None:
    again = write_report(found, tmp_path)
    for file in page.parent.rglob("*"):
        if file.is_file():
            assert (tmp_path / file.relative_to(page.parent)).read_bytes() == file.read_bytes(), file
    assert again == tmp_path / "report.html"


def test_what_an_earlier_report_wrote_goes_and_other_files_stay(found: StudyResults, tmp_path: Path) -> None:
    write_report(found, tmp_path)
    for name in ("tables/variance-validation.csv", "tables/categories-validation.tex", "figures/forest-validation.svg"):
        (tmp_path / name).write_text("old")
    mine = [tmp_path / name for name in ("tables/mine.csv", "figures/forest.svg", "tables/trials.txt")]
    for path in mine:
        path.write_text("mine")
    before = {path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() != b"old"}
    write_report(found, tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    assert before.issuperset(mine)


def test_names_are_no_markup(tmp_path: Path) -> None:
    found = results(tmp_path, (HOSTILE, "a & b", "c"), "repeated.seed=[0,1]")
    text = write_report(found, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "{{ 7 * 7 }}" in text
    for svg in (tmp_path / "figures").glob("*.svg"):
        ElementTree.fromstring(svg.read_text(encoding="utf-8"))


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
    assert "Bold" not in text
    assert 'class="best"' not in text


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
