"""`open_answer`: synonyms in what a model says, and the probability that it says one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from chat_templates import SMOLLM2, chat_tokenizer
from jax.nn import log_softmax

from jaxvalues.config import FormulationConfig
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.formulations.open_answer import FOUND_LOGIT, OpenAnswer
from jaxvalues.run.system import System
from jaxvalues.templates.questions import load_question_template
from jaxvalues.templates.synonyms import load_synonyms, stems_of
from jaxvalues.tuning import Bound

pytestmark = pytest.mark.usefixtures("quick_compiles")

NONE = {"tuning": {"method": "none"}}
ARGUMENT_FIRST = "I claim that {conclusion} because I {stance} the {premise}. In the aspect of {category}, I am"


@pytest.fixture(scope="module")
def synonyms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One or two short words for each category, of one token or several."""
    names = [f"w{chr(97 + i)}" for i in range(20)]
    rows = (f"{name}\t{word}, v{word}x" if i % 2 else f"{name}\t{word}" for i, (name, word) in
            enumerate(zip(CATEGORIES, names, strict=True)))  # fmt: skip
    path = tmp_path_factory.mktemp("synonyms") / "mine.tsv"
    path.write_text("Category\tSynonyms\n" + "\n".join(rows) + "\n")
    return path


def system(network: str, synonyms: Path | None = None, **form: Any) -> tuple[System, Bound]:
    options = {"synonyms": None if synonyms is None else str(synonyms), **form}
    one = tiny.system(tiny.question_config("open_answer", network, {"formulation": options}, NONE))
    return one, Bound(tiny.parts(one)[0])


def brute_force(one: System, bound: Bound, batch: dict[str, np.ndarray], row: int, column: int) -> float:
    """log P - log(1 - P) for one question: each synonym read behind its text by itself."""
    text = batch["input_ids"][row][batch["attention_mask"][row] != 0].tolist()
    if "question_ids" in batch:
        text += batch["question_ids"][row, column][batch["question_mask"][row, column] != 0].tolist()
    total = 0.0
    for ids, mask in zip(batch["answer_ids"][row, column], batch["answer_mask"][row, column], strict=True):
        word = ids[mask != 0].tolist()
        if not word:
            continue
        if one.hf_config["model_type"] == "t5":
            said = np.array([[one.network.module.config.decoder_start_token_id, *word[:-1]]])
            logits = one.network.module.apply({"params": bound.params}, np.array([text]), np.ones((1, len(text))), said)
        else:
            read = np.array([text + word])
            logits = one.network.module.apply({"params": bound.params}, read, np.ones(read.shape))
            logits = logits[:, len(text) - 1 : -1]
        total += float(jnp.exp(log_softmax(logits[0])[np.arange(len(word)), np.array(word)].sum()))
    return float(np.log(total) - np.log1p(-total))


@pytest.mark.exhaustive
@pytest.mark.main_cases("t5", "gpt2 branches")
@pytest.mark.parametrize("layout", ["t5", "gpt2", "gpt2 branches"])
def test_the_likelihood_is_that_of_any_synonym(layout: str, synonyms: Path, tmp_path: Path) -> None:
    form = {}
    if layout == "gpt2 branches":
        (tmp_path / "first.txt").write_text(ARGUMENT_FIRST)
        form = {"template": str(tmp_path / "first.txt")}
    one, bound = system(layout.split(maxsplit=1)[0], synonyms, **form)
    tokens = one.formulation.encode(tiny.split().arguments[:1])
    batch = tiny.batch(one, tokens, 2)
    assert ("question_ids" in batch) is (layout == "gpt2 branches")
    assert batch["answer_ids"].shape[-1] > 1
    forward = jax.jit(lambda bound, batch: one.formulation.forward(one.network.module, bound, batch).logits)
    logits = np.asarray(forward(bound, batch))
    places = [(0, 1), (0, 4)] if layout == "gpt2 branches" else [(0, 0), (1, 0)]
    for row, column in places:
        np.testing.assert_allclose(logits[row, column], brute_force(one, bound, batch, row, column), rtol=1e-4)
    if layout != "t5":
        np.testing.assert_allclose(forward(bound, tiny.padded_left(batch)), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.exhaustive
def test_answers_of_one_token_branch_from_an_argument(tmp_path: Path) -> None:
    """Nothing is processed behind a question then: its last token predicts every answer."""
    tokenizer, words = tiny.asking_tokenizer(), {}
    for text in sorted(tokenizer.batch_decode([[i] for i in range(len(tokenizer))])):
        if re.fullmatch(" [a-z]{4,}", text):
            words.setdefault(stems_of(text), text.strip())
    rows = map("\t".join, zip(CATEGORIES, list(words.values()), strict=False))
    (tmp_path / "words.tsv").write_text("Category\tSynonyms\n" + "\n".join(rows) + "\n")
    (tmp_path / "first.txt").write_text(ARGUMENT_FIRST)
    one, bound = system("gpt2", tmp_path / "words.tsv", template=str(tmp_path / "first.txt"))
    batch = tiny.batch(one, one.formulation.encode(tiny.split().arguments[:1]), 2)
    assert batch["answer_ids"].shape[2:] == (1, 1)
    logits = np.asarray(one.formulation.forward(one.network.module, bound, batch).logits)
    np.testing.assert_allclose(logits[0, 3], brute_force(one, bound, batch, 0, 3), rtol=1e-4)


@pytest.mark.slow
def test_logits_and_gradients_are_finite_where_words_are_impossible_or_certain(synonyms: Path) -> None:
    one, bound = system("t5", synonyms)
    batch = tiny.batch(one, one.formulation.encode(tiny.split().arguments[:1]), 2)

    @jax.jit
    def measure(scale: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            logits = one.formulation.forward(one.network.module, Bound(params), batch).logits
            return logits.sum(), logits

        louder = jax.tree.map(lambda x: x * scale if x.ndim > 1 else x, bound.params)
        return jax.value_and_grad(loss, has_aux=True)(louder)

    for scale in (0.0, 1.0, 20.0):
        (_, logits), gradients = measure(jnp.float32(scale))
        assert np.isfinite(logits).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_only_the_answer_is_looked_at() -> None:
    one, _ = system("t5")
    synonyms, tokenizer = load_synonyms(), tiny.asking_tokenizer()
    word = {name: synonyms[name][0] for name in CATEGORIES}
    texts = [
        f"I am {word[CATEGORIES[2]]} indeed",
        "nothing of the kind",
        f"{word[CATEGORIES[5]]}, {word[CATEGORIES[2]]}",
    ]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    answers = np.full((3, max(map(len, ids)) + 2), tokenizer.pad_token_id)
    for row, one_ids in zip(answers, ids, strict=True):
        row[: len(one_ids) + 1] = [*one_ids, tokenizer.eos_token_id]
    for category, expected in ((2, [1, -1, 1]), (5, [-1, -1, 1]), (9, [-1, -1, -1])):
        logits = one.formulation.match(answers, np.full((3, 1), category))
        assert logits.tolist() == [[FOUND_LOGIT * sign] for sign in expected]


def test_a_row_that_generates_asks_one_question(tmp_path: Path) -> None:
    """Where questions branch from a row, what follows the row would answer none of them."""
    (tmp_path / "first.txt").write_text(ARGUMENT_FIRST)
    template = {"template": str(tmp_path / "first.txt")}
    arguments = tiny.split().arguments[:2]
    for scoring, shape in (("likelihood", (2, 20)), ("generation", (40, 1))):
        one, _ = system("gpt2", scoring=scoring, **template)
        tokens = one.formulation.encode(arguments)
        assert tokens.questions.categories.shape == shape
    (*_, end) = tokens.ids[-1]
    assert tiny.asking_tokenizer().decode(tokens.ids[-1]).endswith(f"{CATEGORIES[-1]}, I am")
    assert end != tiny.asking_tokenizer().eos_token_id


def test_the_words_of_a_category_are_its_synonyms_each_once(synonyms: Path) -> None:
    one, _ = system("t5", synonyms)
    answers, tokenizer = one.formulation.question_rows.answers, tiny.asking_tokenizer()
    for number, table in enumerate(answers):
        said = [tokenizer.decode(row[row >= 0]).strip() for row in table if (row >= 0).any()]
        assert said == list(load_synonyms(synonyms)[CATEGORIES[number]])


@pytest.mark.parametrize("chat", [True, False])
def test_an_answer_ends_with_the_turn_of_a_chat(chat: bool) -> None:
    tokenizer = chat_tokenizer(SMOLLM2)
    config = FormulationConfig(kind="open_answer", chat=chat, scoring="generation")
    one = OpenAnswer.make(config, tokenizer, load_question_template("open_answer"), 10**6, is_causal=True)
    end, of_turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert one.constants == ((end, of_turn) if chat else (end,))


def test_synonyms_in_a_chat_are_at_the_start_of_a_line_too(synonyms: Path) -> None:
    words = [load_synonyms(synonyms)[name] for name in CATEGORIES]
    tokenizer = chat_tokenizer(SMOLLM2, (" ".join(["", *words[0]]), "\n".join(words[0])) * 9)
    template = load_question_template("open_answer")

    def said(**options: Any) -> list[set[str]]:
        config = FormulationConfig(kind="open_answer", synonyms=str(synonyms), **options)
        answers = OpenAnswer.make(config, tokenizer, template, 10**6, is_causal=True).question_rows.answers
        return [{tokenizer.decode(row[row >= 0]) for row in table if (row >= 0).any()} for table in answers]

    plain, chat = said(), said(chat=True)
    assert said(chat=True, stem="I am") == plain
    assert chat == [{*of, *before} for of, before in zip(words, plain, strict=True)]
    assert any(word.startswith(" ") for word in plain[0])
