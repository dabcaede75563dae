"""From log-probabilities and votes to logits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxvalues.config import VerbalizerConfig
from jaxvalues.remote.answers import filled
from jaxvalues.remote.scoring import Words, log_odds, vote_logit

WORDS = Words.of(VerbalizerConfig())


def logs(**probabilities: float) -> dict[str, float]:
    return {token.replace("_", " "): math.log(p) for token, p in probabilities.items()}


def test_the_variants_of_a_word_are_added() -> None:
    odds = log_odds(logs(Yes=0.3, _yes=0.1, YES=0.1, No=0.2, _No=0.05, Well=0.2), WORDS)
    assert odds.logit == pytest.approx(math.log(0.5 / 0.25))
    assert odds.mass == pytest.approx(0.75)
    assert odds.bounded is None
    assert odds.words.keys() == {"Yes", " yes", "YES", "No", " No"}


@pytest.mark.parametrize("token", ["Yes", " Yes", "▁Yes", "Ġyes", "**Yes", "yes.", '"Yes', "YES\n"])
def test_what_stands_around_a_word_does_not_count(token: str) -> None:
    assert log_odds({token: math.log(0.5), "No": math.log(0.25)}, WORDS).logit == pytest.approx(math.log(2))


def test_other_words_are_not_counted() -> None:
    assert log_odds(logs(Yesterday=0.5, Nobody=0.3, Y=0.1), WORDS) is None


def test_an_absent_side_has_the_smallest_probability_returned() -> None:
    odds = log_odds(logs(Yes=0.9, Perhaps=0.05, Well=0.01), WORDS)
    assert odds.logit == pytest.approx(math.log(0.9 / 0.01))
    assert odds.bounded == "no"
    odds = log_odds(logs(No=0.9, Perhaps=0.05, Well=0.01), WORDS)
    assert odds.logit == pytest.approx(-math.log(0.9 / 0.01))
    assert (odds.bounded, odds.mass) == ("yes", pytest.approx(0.9))


def test_other_words_of_the_config() -> None:
    words = Words.of(VerbalizerConfig(yes=("True", "Ja"), no=("False",)))
    assert log_odds(logs(ja=0.2, true=0.2, False_=0.1, Yes=0.5), words).logit == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("Yes", True),
        (" **No**, it is not.", False),
        ("yes, because nobody said no", True),
        ("The answer is Yes.", True),
        ("I would say no", False),
        ("It is neither yes nor no", None),
        ("Yesterday", None),
        ("", None),
        ("Nobody knows", None),
        ("NO", False),
        ("<think>\nOkay, there is no", None),
        ("<think>There is no harm.</think>\n\nYes", True),
        ("There is no harm.</think>Yes", True),
        ("[THINK]Yes? No.[/THINK]**No**", False),
        ("<think>No</think>", None),
    ],
)
def test_votes(text: str, vote: bool | None) -> None:
    assert WORDS.vote(text) is vote


@pytest.mark.parametrize(
    ("text", "vote"),
    [("Okay, there is no", None), ("No, because yes", False), ("Yes, it", True), ("<think>No", None)],
)
def test_in_an_answer_without_its_end_only_the_beginning_votes(text: str, vote: bool | None) -> None:
    assert WORDS.vote(text, is_cut=True) is vote


def test_a_bound_that_is_given_stands_in_the_place_of_an_absent_side() -> None:
    odds = log_odds(logs(Yes=0.9, Well=0.001), WORDS, bound=math.log(0.01))
    assert odds.logit == pytest.approx(math.log(0.9 / 0.01))
    assert log_odds(logs(Yes=0.8, No=0.1), WORDS, bound=math.log(0.01)).logit == pytest.approx(math.log(8))


def test_the_logit_of_votes() -> None:
    assert vote_logit([True] * 5) == pytest.approx(math.log(5.5 / 0.5))
    assert vote_logit([True, False]) == 0
    assert vote_logit([False]) == pytest.approx(-math.log(3))


def test_what_is_missing_has_the_mean_of_its_category() -> None:
    nan = float("nan")
    logits = np.array([[1.0, nan, nan], [3.0, -2.0, nan], [nan, -4.0, nan]])
    expected = [[1, -3, -0.5], [3, -2, -0.5], [2, -4, -0.5]]
    np.testing.assert_allclose(filled(logits), expected)
    assert filled(logits).dtype == np.float32
    np.testing.assert_array_equal(filled(np.full((2, 2), nan)), 0)
