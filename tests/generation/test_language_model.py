"""generate and score: transformers' tokens, one program for all lengths of a bucket, seeded draws, ends, bad input."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from llama_reference import CONFIGS as FAMILY
from llama_reference import model, tensors, torch_model
from speaking import PROMPTS, V, language_model, save, tokenizer

from jaxvalues.data.tokenizers import special_tokens
from jaxvalues.errors import UserError
from jaxvalues.generation import LanguageModel
from jaxvalues.generation import language_model as engine
from jaxvalues.tuning import Bound

pytestmark = pytest.mark.usefixtures("quick_compiles")

NEW = 12


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is traced from now on, by models that are made from now on."""
    found: list[str] = []

    def counting(name: str) -> Any:
        original = getattr(engine, name)

        def traced(*args: Any, **options: Any) -> Any:
            found.append(name)
            return original(*args, **options)

        return traced

    for name in ("start", "decode", "answer_log_probs"):
        monkeypatch.setattr(engine, name, counting(name))
    return found


def fresh(batch_size: int = 4, **options: Any) -> LanguageModel:
    shared = language_model()
    return LanguageModel(shared.module, shared.bound, shared.tokenizer, batch_size=batch_size, **options)


def ids(lm: LanguageModel, prompts: list[Any], **options: Any) -> list[list[int]]:
    return [one.ids for one in lm.generate(prompts, NEW, **options)]


@pytest.mark.parametrize("name", ["gpt2", pytest.param("t5", marks=pytest.mark.slow)])
def test_it_says_what_transformers_says(name: str, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    lm, auto = language_model(name), "AutoModelForCausalLM" if name == "gpt2" else "AutoModelForSeq2SeqLM"
    theirs = getattr(transformers, auto).from_pretrained(save(tmp_path, name))
    whole = lm.generate(PROMPTS, NEW)
    assert all(one.finish_reason == "length" and len(one.ids) == NEW for one in whole)
    ends = (whole[0].ids[3], whole[1].ids[5])  # several ends
    stopping = LanguageModel(lm.module, lm.bound, lm.tokenizer, ends, 4)
    for prompt, free, ours in zip(PROMPTS, whole, stopping.generate(PROMPTS, NEW), strict=True):
        row = torch.tensor([lm._reader.ids(prompt)])
        options = {"attention_mask": torch.ones_like(row), "max_new_tokens": NEW, "do_sample": False, "pad_token_id": 1}
        skip = row.shape[1] if name == "gpt2" else 1
        assert theirs.generate(row, eos_token_id=V + 1, **options)[0, skip:].tolist() == free.ids
        assert theirs.generate(row, eos_token_id=list(ends), **options)[0, skip:].tolist() == ours.ids
        assert ours.finish_reason == ("stop" if ours.ids[-1] in ends else "length")
        said = ours.ids[:-1] if ours.ids[-1] in ends else ours.ids
        assert ours.text == tokenizer().decode(said, skip_special_tokens=True)
    assert any(one.finish_reason == "stop" for one in stopping.generate(PROMPTS, NEW))


@pytest.mark.slow
@pytest.mark.main_cases("qwen2", "gemma3")
@pytest.mark.parametrize("kind", FAMILY)
def test_the_llama_family_says_what_transformers_says(kind: str) -> None:
    """Beyond their windows and their context of training, in batches of mixed lengths."""
    torch = pytest.importorskip("torch")
    config = {**FAMILY[kind], "vocab_size": V}
    module, params = model(config)
    theirs = torch_model(config, tensors(config))
    random = np.random.default_rng(1)
    prompts = [random.integers(3, V, size).tolist() for size in (3, 16, 1, 9, 14)]
    lm = LanguageModel(module, Bound(params), tokenizer(), batch_size=8)
    for prompt, ours in zip(prompts, lm.generate(prompts, 24), strict=True):
        row = torch.tensor([prompt])
        said = theirs.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=24, do_sample=False, pad_token_id=1
        )
        assert said[0, len(prompt) :].tolist() == ours.ids


def test_one_program_serves_all_lengths_of_a_bucket(traces: list[str]) -> None:
    lm = fresh()
    for length in (1, 7, 16):
        lm.generate([[5] * length, [6] * 3], max_new_tokens=length)
        assert traces == ["start", "decode"]
    lm.generate([[5] * 17, [6] * 3, [7] * 24], max_new_tokens=13)  # a batch of one, and one of two of another bucket
    assert traces == ["start", "decode"] * 3
    for temperature, top_p, seed, stop in ((1.0, 1.0, 0, ()), (0.3, 0.5, 9, ("a", "b")), (2.0, 0.9, 4, "c")):
        lm.generate([[5] * 4, [6] * 3], 9, temperature=temperature, top_p=top_p, seed=seed, stop=stop)
        assert traces == ["start", "decode"] * 4
    for answers in (["Yes", "No"], ["value", "premise"]):
        lm.score(["Is it", "Is it based on"], answers)
    assert traces == [*["start", "decode"] * 4, "answer_log_probs"]


def test_a_draw_depends_on_its_seed_and_its_place_alone() -> None:
    lm, options = language_model(), {"temperature": 1.0, "top_p": 0.9}
    drawn = ids(lm, PROMPTS, **options)
    assert ids(lm, PROMPTS, **options) == drawn
    assert ids(lm, [PROMPTS[0], "value", PROMPTS[2]], **options)[::2] == drawn[:3:2]  # other batch mates
    assert ids(fresh(1), PROMPTS, **options) == drawn  # another batch size
    assert ids(lm, PROMPTS, seed=1, **options) != drawn
    same = ids(lm, [PROMPTS[0]] * 4, **options)
    assert len({tuple(one) for one in same}) == 4


@pytest.mark.slow
def test_samples_of_a_prompt_are_read_once_and_drawn_apart() -> None:
    options = {"temperature": 1.0, "seed": 3}
    drawn = ids(fresh(), PROMPTS[:2], samples=3, **options)
    assert len({tuple(one) for one in drawn}) == 6
    assert ids(fresh(2), PROMPTS[:2], samples=3, **options) == drawn  # in two batches for each prompt
    assert ids(fresh(), PROMPTS[:2], **options) == drawn[::3]
    greedy = ids(fresh(), PROMPTS[:2], samples=2)
    assert greedy[0] == greedy[1] != greedy[2] == greedy[3]


@pytest.mark.exhaustive
def test_samples_of_t5_are_drawn_apart() -> None:
    lm, options = language_model("t5"), {"temperature": 1.0, "seed": 3}
    drawn = ids(lm, PROMPTS[:2], samples=2, **options)
    assert len({tuple(one) for one in drawn}) == 4
    assert ids(lm, PROMPTS[:2], **options) == drawn[::2]


def test_text_ends_before_a_stop_string_wherever_it_begins() -> None:
    lm = language_model()
    whole = lm.generate(PROMPTS, 40)
    stops = [one.text[9:12] for one in whole[:2]]
    found = lm.generate(PROMPTS, 40, stop=stops)
    for one, ours in zip(whole, found, strict=True):
        places = [at for at in map(one.text.find, stops) if at >= 0]
        assert (ours.finish_reason == "stop") == bool(places)
        assert one.ids[: len(ours.ids)] == ours.ids
        assert one.text.startswith(ours.text)
        assert not any(stop in ours.text for stop in stops)
        if places:
            before, whole_text = (
                tokenizer().decode(ids, skip_special_tokens=True) for ids in (ours.ids[:-1], ours.ids)
            )
            assert not any(stop in before for stop in stops)
            assert any(stop in whole_text for stop in stops)
        else:
            assert ours == one
    assert sum(one.finish_reason == "stop" for one in found) >= 2


def test_stop_strings_end_the_loop_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = fresh()
    one = lm.generate(PROMPTS[:1], 128)[0]
    counts = []
    original = lm._decode

    def decode(*args: Any, **options: Any) -> Any:
        state = original(*args, **options)
        counts.append(int(state.count))
        return state

    monkeypatch.setitem(vars(lm), "_decode", decode)
    stop = one.text[:3]
    assert lm.generate(PROMPTS[:1], 128, stop=stop)[0].text == ""
    assert counts == [1 + engine.EVERY]


def test_a_special_token_as_a_stop_string_ends_a_row_though_texts_do_not_show_it() -> None:
    lm = language_model()
    id = tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert lm._ends(("<|im_end|>", "x")).tolist() == [id, -1, -1, -1]
    assert fresh(ends=(2, 3, 5, 7))._ends(("<|im_end|>",)).tolist() == [2, 3, 5, 7, id, -1, -1, -1]


@functools.cache
def all_log_probs(name: str) -> Callable[..., jax.Array]:
    """The log-probabilities [T, V] of the token after every token of a row, or of what T5's decoder reads."""
    lm = language_model(name)

    @jax.jit
    def log_probs(*rows: jax.Array) -> jax.Array:
        read = rows[0], (rows[0] != 1).astype(np.int32)
        return jax.nn.log_softmax(lm.module.apply({"params": lm.bound.params}, *read, *rows[1:])[0])

    return log_probs


def naive_log_prob(name: str, prompt: list[int], answer: list[int]) -> float:
    """The log-probability of an answer by one pass without a cache."""
    rows = np.ones((2, 1, 32), np.int32)  # padding
    if name == "gpt2":
        rows[0, 0, : len(prompt + answer)] = prompt + answer
        first, rows = len(prompt) - 1, rows[:1]
    else:
        rows[0, 0, : len(prompt)], rows[1, 0, : len(answer)] = prompt, [1, *answer[:-1]]
        first = 0
    each = np.asarray(all_log_probs(name)(*rows))
    return float(sum(each[first + i, token] for i, token in enumerate(answer)))


def test_scores_are_the_log_probabilities_of_all_tokens() -> None:
    lm, answers = language_model(), [" based", " premise and conclusion", [9, 8, 7]]
    scores = lm.score([*PROMPTS, [5, 6]], answers)
    assert scores.shape == (5, 3)
    for prompt, row in zip([*PROMPTS, [5, 6]], scores, strict=True):
        for answer, score in zip(answers, row, strict=True):
            expected = naive_log_prob("gpt2", lm._reader.ids(prompt), lm._reader.answer_ids(answer))
            np.testing.assert_allclose(score, expected, rtol=1e-5)
    several = lm.score(PROMPTS[:2], [[" Yes", " No"], [" No", " value"]])
    assert several[0, 1] == pytest.approx(lm.score(PROMPTS[:1], [" No"])[0, 0], rel=1e-5)
    assert several[1, 0] == pytest.approx(lm.score(PROMPTS[1:2], [" No"])[0, 0], rel=1e-5)


def test_scores_add_up_over_all_first_tokens_and_say_how_often_one_is_drawn() -> None:
    lm = language_model()
    scores = lm.score([[5, 6, 7]], [[token] for token in range(V)])
    assert scores.shape == (1, V)
    np.testing.assert_allclose(np.exp(scores.astype(np.float64)).sum(), 1, rtol=1e-5)
    best = lm.generate([[5, 6, 7]], 1)[0].ids
    assert best == [int(scores.argmax())]


@pytest.mark.slow
def test_scores_of_t5() -> None:
    lm = language_model("t5")
    scores = lm.score(PROMPTS, ["Yes", "the human value"])
    for prompt, row in zip(PROMPTS, scores, strict=True):
        for answer, score in zip(["Yes", "the human value"], row, strict=True):
            expected = naive_log_prob("t5", lm._reader.ids(prompt), lm._reader.answer_ids(answer))
            np.testing.assert_allclose(score, expected, rtol=1e-5)


def test_the_whole_context_can_be_used_and_no_more() -> None:
    lm = fresh(1)
    assert len(lm.generate([[5] * 150], max_new_tokens=10)[0].ids) == 10
    for prompt, new in (([5] * 151, 10), ([5] * 3, 158), ([5] * 161, 1)):
        with pytest.raises(
            UserError, match=rf"prompts\[1\]: it has {len(prompt)} tokens and max_new_tokens {new}, but"
        ):
            lm.generate([[5], prompt], max_new_tokens=new)
    with pytest.raises(UserError, match=r"prompts\[0\]: it has 159 tokens and an answer 2, but"):
        lm.score([[5] * 159], [[3], [4, 4]])
    with pytest.raises(UserError, match="20 are the most in all"):
        fresh(1, max_length=20).generate([[5] * 15], max_new_tokens=6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, expected 0"),
        ({"temperature": float("nan")}, "temperature is nan, expected a number"),
        ({"temperature": "warm"}, "temperature is 'warm', expected a number"),
        ({"temperature": 10**400}, "temperature is 1000.*, expected a number"),
        ({"stop": 5}, "stop is 5, expected a text or several"),
        ({"top_p": 0.0}, "top_p is 0.0, expected a probability"),
        ({"top_p": 1.5}, "top_p is 1.5, expected a probability"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected a whole number from 1 on"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0 on"),
        ({"seed": 2**32}, r"seed is 4294967296, expected a whole number from 0 on, below 2\^32"),
        ({"samples": 0}, "samples is 0"),
        ({"stop": [""]}, "stop holds"),
    ],
)
def test_bad_settings_end_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        language_model().generate(["Is it"], **options)


def test_special_tokens_are_stops_alone_only() -> None:
    lm = language_model()
    (special, id), *_ = special_tokens(lm.tokenizer).items()
    assert id in lm._ends([special])
    with pytest.raises(UserError, match=f"texts do not show the special token {re.escape(special)} in it: give this"):
        lm.generate(["Is it"], stop=f"{special}\n")


def test_a_text_goes_on_where_its_prompt_ends() -> None:
    """Decoders of the Llama 2 kind drop a space at the beginning of what they decode."""
    from tokenizers import decoders

    lm = dataclasses.replace(language_model(), tokenizer=copy.deepcopy(language_model().tokenizer))
    ids = lm._reader.answer_ids(" No user")
    whole = lm._text_of(ids)
    assert whole.startswith(" ")
    stripping = decoders.Sequence([lm.tokenizer.backend_tokenizer.decoder, decoders.Strip(" ", 1, 0)])
    lm.tokenizer.backend_tokenizer.decoder = stripping
    assert lm.tokenizer.decode(ids) == whole[1:]
    assert lm._text_of(ids) == whole


def test_a_token_without_an_embedding_is_named() -> None:
    lm = dataclasses.replace(language_model(), tokenizer=copy.deepcopy(language_model().tokenizer))
    lm.tokenizer.add_tokens(["<image>"], special_tokens=True)
    id = lm.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(UserError, match=rf"prompts\[0\]: token {id} is not one of the {V} of the model"):
        lm.generate(["Is it <image>"])


def test_bad_prompts_are_named() -> None:
    lm = language_model()
    with pytest.raises(UserError, match=r"prompts\[1\]: it is empty"):
        lm.generate(["Is it", ""])
    with pytest.raises(UserError, match=r"prompts\[0\]: it is empty"):
        lm.score([""], ["Yes"])
    with pytest.raises(UserError, match="prompts is 'Is it', expected a list of prompts"):
        lm.generate("Is it")
    with pytest.raises(UserError, match="join is 'apart', expected together or tokens"):
        lm.score(["Is it"], ["Yes"], join="apart")
    assert lm.generate([]) == []
    assert lm.generate([[5]], np.int64(2), temperature=np.float32(0.5)) == lm.generate([[5]], 2, temperature=0.5)
    assert lm.score([], ["Yes"]).shape == (0, 1)
    drawn = [lm.generate([[5]], 8, temperature=1.0, seed=seed)[0].ids for seed in (2**32 - 1, 2**32 - 1, 2**31 - 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(UserError, match="batch_size is 0, expected a whole number from 1 on"):
        fresh(0)


def test_broken_weights_do_not_speak() -> None:
    lm = language_model()
    broken = jax.tree.map(np.array, lm.bound.params)
    broken["encoder"]["norm"]["scale"][0] = np.nan
    broken = LanguageModel(lm.module, Bound(broken), lm.tokenizer, batch_size=4)
    with pytest.raises(UserError, match="logits that are not numbers"):
        broken.generate(PROMPTS, NEW)
    with pytest.raises(UserError, match="logits that are not numbers"):
        broken.score(PROMPTS, ["Yes"])
