"""Sentence encoders: the vectors of transformers, and the examples that are the nearest in their space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from jaxvalues.config import ExamplesConfig, parse_config
from jaxvalues.data.arguments import IN_FAVOR, Argument, Split
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.formulations.examples import Examples
from jaxvalues.models.loading import init_model, save_model
from jaxvalues.run.sentences import load_sentence_encoder, make_examples

pytestmark = pytest.mark.usefixtures("quick_compiles")
TEXTS = ["Whales feel pain", "Taxes are far too high. " * 40, "", "whales feel pain", "Cars make noise"] * 9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny encoder with its tokenizer."""
    words = tiny.tokenizer()
    config = {**tiny.ROBERTA, "vocab_size": len(words), "pad_token_id": words.pad_token_id, "initializer_range": 0.5}
    _, params = init_model(config)
    (tmp_path / "encoder").mkdir()
    save_model(tmp_path / "encoder", config, params)
    words.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_vectors_do_not_depend_on_what_stands_beside_them(folder: Path) -> None:
    encode = load_sentence_encoder(str(folder))
    vectors = encode(TEXTS)
    assert vectors.shape == (45, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[:5], np.concatenate([encode([text]) for text in TEXTS[:5]]), atol=2e-6)
    np.testing.assert_allclose(vectors[5:10], vectors[:5], atol=2e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


@pytest.mark.slow
def test_vectors_of_minilm_are_those_of_transformers(minilm: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    words, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    texts = [f"{one.conclusion} {one.premise}" for one in tiny.split().arguments[:20]]
    batch = words(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(load_sentence_encoder(str(minilm))(texts), wanted, atol=1e-5)


@pytest.mark.slow
def test_the_nearest_need_not_share_a_word(minilm: Path) -> None:
    topics = ["Physicians should be paid more", "The sea is blue", "My cat likes fish", "We like football"]
    pool = Split(
        "training",
        tuple(Argument(f"A{i}", f"topic {i}", IN_FAVOR, text) for i, text in enumerate(topics)),
        np.tile(np.arange(20) < 3, (4, 1)).astype(np.int8),
    )
    shown = ExamplesConfig(count=1, choose="nearest", encoder=str(minilm))
    asked = [Argument("B", "a question", IN_FAVOR, "raise the salaries of doctors")]
    encoder = load_sentence_encoder(str(minilm))
    ((one,),) = Examples.make(shown, pool, encoder=encoder).of(asked)
    assert one.argument.id == "A0"


def test_a_run_reads_back_what_its_encoder_chose(folder: Path) -> None:
    form = {"kind": "answer", "template": None, "examples": {"choose": "nearest", "encoder": str(folder)}}
    config = tiny.config({"formulation": form, "model": {"config": tiny.GPT2}, "tuning": {"method": "none"}})
    written, arguments = make_examples(config, tiny.split()), tiny.split().arguments[:9]
    again = Examples.read(written.config, written.text, 0, encoder=load_sentence_encoder(str(folder)))
    by_words = Examples.make(ExamplesConfig(choose="nearest"), tiny.split())
    ids = [[[one.argument.id for one in shown] for shown in some.of(arguments)] for some in (written, again, by_words)]
    assert ids[0] == ids[1] != ids[2]

    class Other:
        identity = "other"

    with pytest.raises(UserError, match=r"examples\.encoder holds other weights than those that chose the examples"):
        Examples.read(written.config, written.text, encoder=Other())
    with pytest.raises(UserError, match="the examples of the run cannot be read"):
        Examples.read(written.config, written.text)  # they were chosen by an encoder


def test_what_is_no_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    def examples(encoder: Path) -> None:
        form = {"kind": "answer", "template": None, "examples": {"choose": "nearest", "encoder": str(encoder)}}
        make_examples(tiny.config({"formulation": form, "model": {"config": tiny.GPT2}}), tiny.split())

    with pytest.raises(ConfigError, match=r"formulation\.examples\.encoder: the checkpoint folder .*nothing does not"):
        examples(tmp_path / "nothing")
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ConfigError, match=r"formulation\.examples\.encoder: model_type 't5' is not supported"):
        examples(folder)
    with pytest.raises(ConfigError, match=r"`encoder` belongs to choose: nearest, and choose is balanced"):
        parse_config({"formulation": {"kind": "answer", "examples": {"encoder": "somewhere"}}})
