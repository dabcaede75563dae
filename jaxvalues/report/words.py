"""How a report writes figures, and the sentences that answer a study's question."""

from __future__ import annotations

from collections.abc import Sequence

from jaxvalues.errors import counted
from jaxvalues.statistics.interval import Interval
from jaxvalues.study.results import ContrastResult, StudyResults
from jaxvalues.study.screen import figure, probability, signed, verdict


def interval(one: Interval) -> str:
    """A figure with its interval: .431 (.402–.460)."""
    return f"{figure(one.estimate)} ({figure(one.low)}–{figure(one.high)})"


def difference(one: ContrastResult, *, turned: bool = False) -> str:
    """A difference with its interval: +.031 (+.010 to +.052); that of b less a if `turned`."""
    sign = -1 if turned else 1
    low, high = sorted((sign * one.interval.low, sign * one.interval.high))
    return f"{signed(sign * one.difference)} ({signed(low)} to {signed(high)})"


def resampled(results: StudyResults) -> str:
    """What the intervals are over: where no system has several runs, conclusions alone."""
    return "conclusions and runs" if any(len(one.runs) > 1 for one in results.systems.values()) else "conclusions"


def p_value(p: float | None) -> str:
    """A p, or nothing where it was not computed."""
    return "" if p is None else probability(p)


def number(value: float | None, unit: str = "") -> str:
    """A number in three digits, with thousands as k, M, G: 1.2 M."""
    if value is None:
        return ""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g}{' ' + unit if unit else ''}"


def sentence_case(text: str) -> str:
    """A text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: "a, b and c"; "a, x; b" where a name has a comma itself."""
    if any("," in name for name in names):
        return "; ".join(names)
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def answers(results: StudyResults) -> list[str]:
    """The answer to the study's question: one sentence for each contrast and split, generated from its test."""
    return [f"On {one.split}: {verdict(one)}" for one in results.contrasts]


def nothing(results: StudyResults) -> str:
    """Why there is no answer."""
    if len(results.systems) == 1:
        return "There is one system, and nothing to compare it with."
    return "Nothing can be compared yet."


def crossed(one: ContrastResult) -> list[str]:
    """What a contrast is crossed over, in the plural; empty where one key is repeated, or none."""
    return [_plural(key) for key in one.over] if len(one.over) > 1 else []


def _plural(key: str) -> str:
    """What a person calls the values of a repeated key: seeds, templates, values of tuning.init."""
    known = {"seed": "seeds", "init_seed": "initial values", "formulation.template": "templates"}
    return known.get(key, f"values of {key}")


def deciding_test(one: ContrastResult) -> str:
    """The test that decides a contrast, in a few words."""
    if one.t is None:
        return "permutation" if len(one.differences) == 1 else "permutation, all runs of a side are equal"
    runs = counted(len(one.differences), "run")
    if over := crossed(one):
        return f"t, crossed {listed(over)}, {runs}, df {one.t.df:.1f}"
    return f"paired t, {runs}"


SAFE_SIDE = (
    "The p of a permutation is the larger of two: of the difference, and of the difference in standard errors. So it "
    "errs on the safe side."
)
"""What a reader must know of a p by permutation (`jaxvalues.statistics.tests.safe_permutation`)."""


def basis(results: StudyResults) -> str:
    """What the sentences rest on."""
    if not results.contrasts:
        return nothing(results)
    over = dict.fromkeys(listed(crossed(one)) for one in results.contrasts if one.t is not None)
    tests = [
        f"a t test over crossed {keys}, which speaks about this test set and new {keys}"
        if keys
        else "a paired t test over the runs of both systems, which speaks about this test set and new runs"
        for keys in over
    ]
    fixed = [one for one in results.contrasts if one.t is None]
    if any(len(one.differences) == 1 for one in fixed):
        tests.append(
            "a permutation of whole conclusions where each side is one run, which says nothing about other seeds"
        )
    if any(len(one.differences) > 1 for one in fixed):
        tests.append("a permutation of whole conclusions where all runs of a side are equal")
    sentences = [
        f"Whether a difference is decided rests on {', or '.join(tests)}. The p are adjusted over all declared "
        "contrasts of a split (Holm); a difference is decided where its adjusted p is below 5 %.",
        *[SAFE_SIDE] * bool(fixed),
        f"The 95 % intervals resample {resampled(results)}: they speak about new topics too, and are not adjusted. The "
        "minimum detectable difference says how sensitive a comparison was; it decides nothing.",
    ]
    return " ".join(sentences)
