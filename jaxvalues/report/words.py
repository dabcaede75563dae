"""How a report writes figures, and the sentences that answer a study's question."""

from __future__ import annotations

from jaxvalues.statistics.interval import Interval
from jaxvalues.study.results import ContrastResult, StudyResults
from jaxvalues.study.screen import figure, probability, signed, verdict


def interval(one: Interval) -> str:
    """A figure with its interval: .431 (.402–.460)."""
    return f"{figure(one.estimate)} ({figure(one.low)}–{figure(one.high)})"


def difference(one: ContrastResult) -> str:
    """A difference with its interval: +.031 (+.010 to +.052)."""
    return f"{signed(one.difference)} ({signed(one.interval.low)} to {signed(one.interval.high)})"


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


def answers(results: StudyResults) -> list[str]:
    """The answer to the study's question: one sentence for each contrast and split, generated from its test."""
    return [f"On {one.split}: {verdict(one)}" for one in results.contrasts]


def nothing(results: StudyResults) -> str:
    """Why there is no answer."""
    if len(results.systems) == 1:
        return "There is one system, and nothing to compare it with."
    return "Nothing can be compared yet."


def basis(results: StudyResults) -> str:
    """What the sentences rest on."""
    if not results.contrasts:
        return nothing(results)
    fixed = any(one.permutation is not None for one in results.contrasts)
    seeds = any(one.t is not None for one in results.contrasts)
    tests = ["a paired t test over the runs of both systems, which speaks about this test set and new runs"] * seeds
    tests += ["a permutation of whole conclusions where each side is one run, which is silent on other seeds"] * fixed
    return (
        f"Whether a difference is decided rests on {' or '.join(tests)}, adjusted over all declared contrasts of a "
        "split (Holm), at 5 %. The 95 % intervals resample conclusions and runs: they speak about new topics too, and "
        "are not adjusted. The minimum detectable difference says how sensitive a comparison was; it decides nothing."
    )
