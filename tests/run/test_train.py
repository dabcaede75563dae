"""`train` and `predict` in this process, on eight simulated devices: what a config changes, and what it must not."""

from __future__ import annotations

import io
import json
import shutil
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console
from runs import command, metrics, results, run
from scipy.special import logit
from small_runs import Lab

from jaxvalues.data.loading import load_split
from jaxvalues.data.taxonomy import CATEGORIES
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.data.tsv import ARGUMENT_HEADER, write_table
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.decision import read_decision
from jaxvalues.evaluation.predictions import read_predictions
from jaxvalues.models.loading import init_model, save_model
from jaxvalues.run.predict import predict

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def trained(small_lab: Lab) -> Path:
    """The small config as it stands."""
    return small_lab.train("trained")[0]


@pytest.fixture(scope="module")
def base(small_lab: Lab) -> Path:
    """A checkpoint folder of a small RoBERTa, with its tokenizer."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = {"model_type": "roberta", "vocab_size": 500, "max_position_embeddings": 66, "type_vocab_size": 1, **sizes}
    folder = small_lab.folder / "base"
    folder.mkdir()
    texts = [argument.premise for argument in load_split("training", source="sample").arguments]
    train_tokenizer(texts, 500, 64).save_pretrained(folder)
    save_model(folder, config, init_model(config)[1])
    return folder


def probabilities(folder: Path) -> np.ndarray:
    return read_predictions(folder / "probabilities-test.tsv").probabilities


@pytest.mark.slow
def test_the_chosen_step_is_the_best_one(trained: Path) -> None:
    held_out = {line["step"]: line["official_f1"] for line in metrics(trained) if line["kind"] == "held_out"}
    scores = json.loads((trained / "scores.json").read_text())
    assert scores["step"] == max(held_out, key=held_out.get)
    assert scores["held_out"]["official_f1"] == pytest.approx(max(held_out.values()))
    thresholds = {line["step"]: line["threshold_logit"] for line in metrics(trained) if line["kind"] == "held_out"}
    assert thresholds[scores["step"]] == pytest.approx(read_decision(trained).thresholds[0])


@pytest.mark.slow
def test_a_run_that_learned_nothing_says_so_loudly(small_lab: Lab, trained: Path) -> None:
    folder, printed = small_lab.train("nothing", "optimizer.learning_rate=1e-30", "training.epochs=1")
    assert json.loads((folder / "scores.json").read_text())["step"] == 0
    assert "WARNING: no step of training scored better on the held-out part than the untrained start" in printed
    assert "optimizer.learning_rate (it is 1e-30)" in " ".join(printed.split())


@pytest.mark.exhaustive
def test_another_seed_is_another_run(small_lab: Lab, trained: Path) -> None:
    other, _ = small_lab.train("seed", "seed=1", "training.epochs=1")
    assert np.abs(probabilities(other) - probabilities(trained)).max() > 1e-3


def test_predict_writes_what_training_wrote(trained: Path, tmp_path: Path) -> None:
    scored = predict(trained, split="test", out=tmp_path / "new")
    for name in ("predictions-test.tsv", "probabilities-test.tsv"):
        assert (tmp_path / "new" / name).read_bytes() == (trained / name).read_bytes()
    assert (
        json.loads(json.dumps(scored.to_json())) == json.loads((trained / "scores.json").read_text())["splits"]["test"]
    )
    assert np.array_equal(read_decision(tmp_path / "new").thresholds, read_decision(trained).thresholds)


def test_predict_on_another_mesh(trained: Path, tmp_path: Path) -> None:
    predict(trained, split="test", out=tmp_path, overrides=("mesh.fsdp=2", "mesh.tensor=2"))
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(trained), atol=1e-5)


def test_predict_a_file_without_labels(trained: Path, tmp_path: Path) -> None:
    arguments = load_split("test", source="sample").arguments[:5]
    rows = [(one.id, one.conclusion, one.stance, one.premise) for one in arguments]
    write_table(tmp_path / "mine.tsv", ARGUMENT_HEADER, rows)
    assert predict(trained, file=tmp_path / "mine.tsv", out=tmp_path) is None
    mine = read_predictions(tmp_path / "probabilities-mine.tsv")
    assert mine.ids == tuple(one.id for one in arguments)
    np.testing.assert_allclose(mine.probabilities, probabilities(trained)[:5], atol=1e-6)
    assert set((tmp_path / "predictions-mine.tsv").read_text().split("\n")[1].split("\t")[1:]) <= {"0", "1"}


@pytest.mark.parametrize("format", ["wide", "long", "json"])
def test_predict_a_file_that_holds_premises_alone(trained: Path, tmp_path: Path, format: str) -> None:
    (tmp_path / "mine.csv").write_text("note,premise\nfirst,They pollute\nsecond,They kill\n", encoding="utf-8")
    screen = Console(file=io.StringIO(), width=120)
    predict(trained, file=tmp_path / "mine.csv", format=format, out=tmp_path / "out", console=screen)
    printed, mine = screen.file.getvalue(), read_predictions(tmp_path / "out/probabilities-mine.tsv")
    assert mine.ids == ("1", "2")
    assert "The file has no conclusion: it is left empty." in printed
    assert "started from random weights: these predictions show that it runs" in printed
    written = tmp_path / f"out/values-mine.{'json' if format == 'json' else 'csv'}"
    assert f"  {written}\n" in printed
    assert f"{mine.probabilities[1, 19]:.6f}"[:7] in written.read_text(encoding="utf-8")
    assert "second" in written.read_text(encoding="utf-8")


def test_predict_a_file_of_hostile_texts(trained: Path, tmp_path: Path) -> None:
    long = "word " * 10_000
    texts = ["😀", "مرحبا \u202eabc", "\u0301", "字" * 500, "\x07\x1b[0m \x85", "zero\u200bwidth", "</s> <mask> [SEP]"]
    pairs = [(long, "p"), ("c", long), *((text, text) for text in texts)]
    rows = [(f"A{i}", conclusion, "against", premise) for i, (conclusion, premise) in enumerate(pairs)]
    write_table(tmp_path / "hostile.tsv", ARGUMENT_HEADER, rows)
    predict(trained, file=tmp_path / "hostile.tsv", out=tmp_path)
    predicted = read_predictions(tmp_path / "probabilities-hostile.tsv")
    assert predicted.ids == tuple(row[0] for row in rows)
    assert np.isfinite(predicted.probabilities).all()
    assert len(np.unique(predicted.probabilities.round(6), axis=0)) == len(rows)
    write_table(tmp_path / "empty.tsv", ARGUMENT_HEADER, [*rows, ("A9", "c", "against", "\u200b")])
    with pytest.raises(UserError, match=r"empty\.tsv, line 11: the premise holds invisible characters only"):
        predict(trained, file=tmp_path / "empty.tsv", out=tmp_path)


@pytest.mark.exhaustive
def test_a_run_predicts_with_the_texts_it_was_trained_with(small_lab: Lab, tmp_path: Path) -> None:
    template, descriptions = tmp_path / "mine.txt", tmp_path / "mine.tsv"
    template.write_text("{premise}\r\n", encoding="utf-8")
    descriptions.write_text("Category\tDescription\n" + "".join(f"{name}\ta.\n" for name in CATEGORIES))
    overrides = (f"formulation.template={template}", f"formulation.descriptions={descriptions}", "training.epochs=1")
    folder, printed = small_lab.train("described", *overrides)
    assert "training: 230 of 230 arguments are truncated to 48 tokens" in printed
    assert (folder / "template.txt").read_text() == "{premise} {sep} " + "; ".join("a" * 20) + "\n"

    before = results(folder)
    for file, text in ((template, "{premise} {stance}"), (descriptions, descriptions.read_text().replace("a.", "b"))):
        original = file.read_text()
        file.write_text(text)
        with pytest.raises(
            ConfigError, match=r"differs \(other tokenizer; other text in template or descriptions\): give another"
        ):
            small_lab.train("described", *overrides)
        file.write_text(original)
    small_lab.train("described", *overrides)
    assert results(folder) == before

    template.unlink()
    descriptions.unlink()
    predict(folder, split="test", out=tmp_path)
    assert (tmp_path / "probabilities-test.tsv").read_bytes() == before["probabilities-test.tsv"]


def test_descriptions_that_do_not_fit_stop_a_run_before_it_starts(small_lab: Lab) -> None:
    with pytest.raises(ConfigError, match=r"the descriptions take \d+ tokens, .* and data\.max_length 48 leaves none"):
        small_lab.train("refused", "formulation.descriptions=definition")
    assert not (small_lab.folder / "refused").exists()


def test_predict_refuses(small_lab: Lab, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either a split or a file"):
        predict(trained)
    with pytest.raises(ConfigError, match=r"formulation\.template cannot be changed"):
        predict(trained, split="test", overrides=("formulation.template=joined",))
    with pytest.raises(ConfigError, match="there is no split `exam`"):
        predict(trained, split="exam")
    (tmp_path / "test.tsv").write_text("premise\np\n")
    with pytest.raises(ConfigError, match="give --out"):
        predict(trained, file=tmp_path / "test.tsv")
    with pytest.raises(ConfigError, match="eval_batch_size: 12 rows"):
        predict(trained, split="test", overrides=("training.eval_batch_size=12",))
    with pytest.raises(UserError, match="holds no finished run"):
        predict(small_lab.folder, split="test")


@pytest.mark.exhaustive
def test_scan_layers_held_out_fraction_and_thresholds_per_category(small_lab: Lab, tmp_path: Path) -> None:
    overrides = ("model.scan=true", "data.held_out=0.2", "decision.threshold=tuned_per_category", "training.epochs=1")
    folder, _ = small_lab.train("scan", *overrides)
    predict(folder, split="test", out=tmp_path)
    assert (tmp_path / "probabilities-test.tsv").read_bytes() == (folder / "probabilities-test.tsv").read_bytes()
    assert len(set(read_decision(folder).thresholds)) > 1
    scores = json.loads((folder / "scores.json").read_text())
    held_out = int(scores["decision"].split()[-3])
    assert 0.1 < held_out / len(load_split("training", source="sample")) < 0.3

    unrolled = predict(folder, split="test", out=tmp_path, overrides=("model.scan=false",))
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(folder), atol=1e-5)
    assert unrolled is not None


@pytest.mark.slow
def test_bfloat16_accumulation_keep_last_and_a_fixed_threshold(small_lab: Lab) -> None:
    folder, _ = small_lab.train(
        "bfloat16", "model.dtype=bfloat16", "training.accumulation=2", "training.keep=last",
        "decision.threshold=fixed", "decision.value=0.3", "training.epochs=1",
    )  # fmt: skip
    lines = metrics(folder)
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert json.loads((folder / "scores.json").read_text())["step"] == max(line["step"] for line in lines)
    assert set(read_decision(folder).thresholds) == {logit(0.3)}
    decided = read_predictions(folder / "predictions-test.tsv").probabilities
    assert np.array_equal(decided, probabilities(folder) >= np.float32(0.3))


@pytest.mark.slow
def test_patience_stops_early(small_lab: Lab) -> None:
    folder, _ = small_lab.train(
        "patience", "optimizer.learning_rate=1e-12", "training.patience=2", "training.evaluate_every=2"
    )
    assert [line["step"] for line in metrics(folder) if line["kind"] == "held_out"] == [0, 2, 4]
    assert max(line["step"] for line in metrics(folder)) == 4
    assert json.loads((folder / "scores.json").read_text())["step"] == 0


@pytest.mark.exhaustive
def test_last_layers_needs_the_weights_it_started_from(small_lab: Lab, base: Path, tmp_path: Path) -> None:
    overrides = [f"model.path={base}", "model.config=null", "model.train_tokenizer=null", "training.epochs=1"]
    folder, printed = small_lab.train("last", *overrides, "tuning.method=last_layers", "tuning.layers=1")
    assert str(base) in printed
    predict(folder, split="test", out=tmp_path)
    assert (tmp_path / "probabilities-test.tsv").read_bytes() == (folder / "probabilities-test.tsv").read_bytes()

    moved = small_lab.folder / "moved"
    shutil.copytree(base, moved)
    predict(folder, split="test", out=tmp_path, overrides=(f"model.path={moved}",))
    weights = (moved / "model.safetensors").read_bytes()
    (moved / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{moved} holds other weights"):
        predict(folder, split="test", out=tmp_path, overrides=(f"model.path={moved}",))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(small_lab: Lab) -> None:
    overrides = ("optimizer.learning_rate=1e30", "optimizer.clip_norm=null", "training.checkpoint_every=1")
    with pytest.raises(UserError, match=r"the loss at step \d+ is nan.*optimizer\.learning_rate"):
        small_lab.train("diverged", *overrides, "training.evaluate_every=epoch")
    newest = ocp.CheckpointManager((small_lab.folder / "diverged/checkpoints/resume").absolute())
    state = newest.restore(newest.latest_step(), args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state["trainable"]))
    with pytest.raises(UserError, match=r"the held-out loss after step \d+ is (nan|inf)"):
        small_lab.train("diverged-held-out", *overrides, "training.evaluate_every=1")


def test_another_run_in_the_folder_is_refused(small_lab: Lab, trained: Path) -> None:
    before = results(trained)
    with pytest.raises(
        ConfigError, match=r"seed 0 → 3; optimizer\.b1 0\.9 → 0\.8; other weights\): give another output"
    ):
        small_lab.train("trained", "seed=3", "optimizer.b1=0.8")
    with pytest.raises(ConfigError, match=r"model\.config\.hidden_act None → relu"):
        small_lab.train("trained", "model.config.hidden_act=relu")
    assert results(trained) == before


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["mesh.data=3"], "needs 3 devices, but there are 8"),
        (["mesh.fsdp=3"], "does not divide the number of devices, 8"),
        (["training.batch_size=12"], "training.batch_size: 12 rows per micro-batch do not split evenly over 8 devices"),
        (["training.eval_batch_size=12"], "training.eval_batch_size: 12 rows"),
        (["data.max_length=128"], "data.max_length is 128, but the model reads at most"),
        (["data.train=exam"], "data.train: there is no split `exam`"),
        (["tuning.method=last_layers", "tuning.layers=3"], "tuning.layers is 3, but the model has only 2 layers"),
        (["formulation.template=none"], "none"),
    ],
)
def test_a_config_that_cannot_run_is_refused_before_anything_is_written(
    overrides: list[str], sentence: str, small_lab: Lab
) -> None:
    with pytest.raises(ConfigError) as caught:
        small_lab.train("refused", *overrides)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (small_lab.folder / "refused").exists()


@pytest.mark.slow
def test_absent_labels(small_lab: Lab) -> None:
    folder = small_lab.folder / "data"
    folder.mkdir()
    for split in ("training", "validation", "test"):
        sample = load_split(split, source="sample")
        rows = [(one.id, one.conclusion, one.stance, one.premise) for one in sample.arguments]
        write_table(folder / f"arguments-{split}.tsv", ARGUMENT_HEADER, rows)
        if split != "test":
            labels = zip(sample.ids, sample.labels.tolist(), strict=True)
            write_table(
                folder / f"labels-{split}.tsv", ("Argument ID", *CATEGORIES), [(id, *row) for id, row in labels]
            )
    run_folder, printed = small_lab.train("unlabelled", f"data.dir={folder}", "training.epochs=1")
    assert "test: no argument has a label, so it is predicted and not scored" in printed
    assert json.loads((run_folder / "scores.json").read_text())["splits"] == {}
    assert len(probabilities(run_folder)) == len(load_split("test", source="sample"))
    with pytest.raises(ConfigError, match=r"data\.held_out: the split test has no labels"):
        small_lab.train("untunable", f"data.dir={folder}", "data.held_out=test", "data.report=[validation]")


def test_a_run_folder_that_cannot_be_made(small_lab: Lab) -> None:
    with pytest.raises(UserError, match=r"the run folder .* cannot be made"):
        small_lab.train("small.yaml/run")


@pytest.mark.slow
def test_the_command_line_predicts(trained: Path, tmp_path: Path) -> None:
    code, out, err = run("predict", trained, "--split", "test", "--out", tmp_path)
    assert code == 0, err
    assert "official F1" in out
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(trained), atol=1e-5)


def test_the_score_command_agrees_with_training(trained: Path) -> None:
    truth = files("jaxvalues.data") / "sample/labels-test.tsv"
    expected = json.loads((trained / "scores.json").read_text())["splits"]["test"]
    for name in ("predictions-test.tsv", "probabilities-test.tsv"):
        code, out, _ = command("score", "--truth", truth, "--run", trained / name, "--json")
        assert code == 0
        assert json.loads(out) == expected


@pytest.mark.slow
def test_a_diverging_run_exits_with_one_sentence(small_lab: Lab) -> None:
    overrides = (
        "optimizer.learning_rate=1e30",
        "optimizer.clip_norm=null",
        f"output={small_lab.folder / 'diverged-too'}",
    )
    code, _, err = command("train", small_lab.folder / "small.yaml", *overrides)
    assert code == 1
    assert err.startswith("jaxvalues: the loss at step")
    assert err.count("\n") == 1
