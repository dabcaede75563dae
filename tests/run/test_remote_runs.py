"""Whole runs at a stand-in endpoint: what they keep, say, resume and refuse."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from remote_runs import QUESTIONS, config, config_file, run, texts
from rich.console import Console
from runs import command
from stand_in import BROKEN, FINE, MODEL, Behaviour, StandIn, completion, log_odds_of

from jaxvalues.config import load_config
from jaxvalues.data.loading import load_split
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.predictions import read_logits, read_predictions
from jaxvalues.remote import pace
from jaxvalues.remote.store import read_store
from jaxvalues.run.predict import predict
from jaxvalues.run.step_memory import step_memory
from jaxvalues.run.train import train
from jaxvalues.templates.questions import load_question_template

TOTAL = sum(QUESTIONS.values())
FULL = {"remote": {"min_coverage": 1.0}}


@pytest.fixture(autouse=True)
def _quick_and_without_key(monkeypatch: pytest.MonkeyPatch, without_key: None) -> None:
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.01)


def score_of(folder: Path) -> tuple[int, str, str]:
    """What `jaxvalues score` says about the run in `folder`/run."""
    labels, table = folder / "data/labels-test.tsv", folder / "run/predictions-test.tsv"
    return command("score", "--truth", labels, "--run", table)


def test_a_run_is_like_any_other(server: StandIn, tmp_path: Path) -> None:
    scores, printed = run(tmp_path, server.url)
    assert server.total == TOTAL + 1  # one finds out what the endpoint can do
    assert f"{MODEL} at {server.url}: nothing trains" in printed
    assert "arguments: 3 of held_out, 5 of test; 20 questions about each, answered Yes or No" in printed
    assert "batch-calibrated and tuned" in printed
    assert "test: 100 of 100 questions answered; the answer words have 0.9" in printed
    assert "nothing was trained; one threshold tuned on 3 held-out arguments" in printed
    assert "INCOMPLETE" not in printed

    folder = tmp_path / "run"
    logits, test = read_logits(folder / "logits-test.tsv"), load_split("test", dir=tmp_path / "data")
    assert logits.ids == test.ids
    template = load_question_template("answer_chat")
    for row, argument in enumerate(test.arguments):
        for category in range(20):
            text = f"{template.context(argument)}{template.question(category, argument)[0]}"
            expected = log_odds_of({"messages": [{"role": "user", "content": text}]})
            assert logits.values[row, category] == pytest.approx(expected, abs=0.05)  # " yes" adds a little
    saved = json.loads((folder / "scores.json").read_text())
    assert saved["step"] is None
    assert saved["coverage"] == {"held_out": 1.0, "test": 1.0}
    assert saved["splits"]["test"]["official_f1"] == scores.official_f1
    record = json.loads((folder / "language_model.json").read_text())["test"]
    assert record["answered"] == 100
    assert record["answer_words"].keys() == {"Yes", "No", " yes"}
    assert record["first_prompt"]["request"]["messages"][0]["content"].startswith("Given the premise: ")
    found = json.loads((folder / "endpoint.json").read_text())
    assert (found["found"]["top_logprobs"], found["requests"]) == (20, TOTAL + 1)
    assert json.loads((folder / "decisions.json").read_text()).keys() >= {"raw", "batch-calibrated", "tuned"}
    assert load_config(folder / "config.yaml").model.id == MODEL

    again, printed = run(tmp_path, server.url)
    assert again == scores
    assert "already finished" in printed
    assert server.total == TOTAL + 1
    assert (
        command("score", "--truth", tmp_path / "data/labels-test.tsv", "--run", folder / "predictions-test.tsv")[0] == 0
    )


def test_a_finished_run_predicts_other_arguments(server: StandIn, tmp_path: Path) -> None:
    run(tmp_path, server.url)
    screen, before = Console(file=io.StringIO(), width=150), server.total
    predict(tmp_path / "run", split="training", out=tmp_path / "out", console=screen)
    assert server.total == before + 6 * 20
    assert read_predictions(tmp_path / "out/predictions-training.tsv").probabilities.shape == (6, 20)
    mine = tmp_path / "mine.csv"
    mine.write_text("Premise,Conclusion,Stance\nTrees are green,We should plant trees,in favor of\n")
    predict(tmp_path / "run", file=mine, out=tmp_path / "out", console=screen)
    assert server.total == before + 7 * 20
    predict(tmp_path / "run", split="test", out=tmp_path / "out", console=screen)  # all in the store
    assert server.total == before + 7 * 20
    assert (tmp_path / "out/logits-test.tsv").read_bytes() == (tmp_path / "run/logits-test.tsv").read_bytes()
    with pytest.raises(ConfigError, match=r"model\.id cannot be changed"):
        predict(tmp_path / "run", split="test", overrides=("model.id=other",), console=screen)


@pytest.mark.slow
def test_votes(server: StandIn, tmp_path: Path) -> None:
    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        odds = log_odds_of({"messages": [body, {}]})  # of all that is sent, the seed too
        return Behaviour(text="Yes, it is." if odds > 0 else "No.", logprobs=False)

    server.behave = behave
    with pytest.raises(ConfigError, match=r"returns no log-probabilities: set model\.remote\.scoring=votes"):
        run(tmp_path, server.url)
    assert not (tmp_path / "run").exists()
    server.counts.clear()
    _, printed = run(tmp_path, server.url, model={"remote": {"scoring": "votes", "samples": 3}})
    assert server.total == 3 * TOTAL + 1
    assert "votes of 3 answers at temperature 1" in printed
    values = read_logits(tmp_path / "run/logits-test.tsv").values
    possible = [math.log((yes + 0.5) / (3 - yes + 0.5)) for yes in range(4)]
    assert np.abs(values[..., None] - possible).min(axis=-1).max() < 1e-6
    assert len(np.unique(values)) == 4  # samples have their own seeds, so they differ
    assert {json.loads(body)["seed"] for body in server.counts} == {0, 1, 2}


@pytest.mark.slow
def test_seeds_of_votes_are_other_samples(server: StandIn, tmp_path: Path) -> None:
    votes = {"remote": {"scoring": "votes", "samples": 2}, "answers": str(tmp_path / "shared.jsonl")}
    run(tmp_path, server.url, model=votes)
    run(tmp_path, server.url, model=votes, seed=1, output=str(tmp_path / "second"))
    assert server.total == 2 * 2 * TOTAL + 1
    run(tmp_path, server.url, model=votes, seed=1, output=str(tmp_path / "third"))
    assert server.total == 2 * 2 * TOTAL + 1
    assert not (tmp_path / "run/answers.jsonl").exists()


def incomplete(number: int, body: dict[str, Any]) -> Behaviour:
    """A server that never answers a few questions about Hedonism, and refuses some of Face."""
    text = body["messages"][0]["content"]
    if "Hedonism" in text and log_odds_of(body) > 0:
        return BROKEN
    if '"Face"' in text and log_odds_of(body) > 0:
        return Behaviour(text="", finish_reason="content_filter", logprobs=False)
    return FINE


def test_what_is_missing_is_never_a_no(server: StandIn, tmp_path: Path) -> None:
    server.behave = incomplete
    accepts = {"remote": {"min_coverage": 0.5, "attempts": 2}}
    scores, printed = run(tmp_path, server.url, model=accepts, decision={"threshold": "fixed"})
    test, folder = load_split("test", dir=tmp_path / "data"), tmp_path / "run"
    rows = [line.split("\t") for line in (folder / "missing-test.tsv").read_text().splitlines()[1:]]
    missing = {(test.ids.index(id), name) for id, name in rows}
    assert {name for _, name in missing} == {"Hedonism", "Face"}
    assert 2 <= len(missing) < 10

    # Scored is what was answered: in each category, precision and recall of the arguments with an answer.
    values = read_logits(folder / "logits-test.tsv").values
    for column, name in ((3, "Hedonism"), (7, "Face"), (0, "Self-direction: thought")):
        there = [row for row in range(len(test)) if (row, name) not in missing]
        truth, decided = test.labels[there, column] == 1, values[there, column] >= 0
        label = scores.categories[name]
        assert label.support == truth.sum()
        if truth.any():
            assert label.recall == pytest.approx((truth & decided).sum() / truth.sum())
            assert label.precision == pytest.approx((truth & decided).sum() / max(1, decided.sum()))
    answered = [values[row, 3] for row in range(len(test)) if (row, "Hedonism") not in missing]
    (guess, *_) = {values[row, column] for row, name in missing if name == "Hedonism" for column in (3,)}
    assert guess == pytest.approx(np.mean(answered), abs=1e-6)

    # And it is said wherever the figure is.
    share = 1 - len(missing) / 100
    assert scores.coverage == pytest.approx(share)
    saved = json.loads((folder / "scores.json").read_text())
    assert saved["coverage"]["test"] == saved["splits"]["test"]["coverage"] == pytest.approx(share)
    flag = f"* INCOMPLETE: test {math.floor(share * 10_000) / 100:.2f} % of the questions have an answer"
    figure = f"{scores.official_f1:.3f}".removeprefix("0") + "*"
    assert flag in printed
    assert figure in printed
    assert "(500 " in printed
    assert "filtered" in printed
    again, printed = run(tmp_path, server.url, model=accepts, decision={"threshold": "fixed"})
    assert again == scores
    assert flag in printed
    assert figure in printed
    code, out, _ = command(
        "score", "--truth", tmp_path / "data/labels-test.tsv", "--run", folder / "predictions-test.tsv"
    )
    assert code == 0
    assert "is INCOMPLETE: the questions in missing-test.tsv have no answer" in " ".join(out.split())
    code, out, _ = command("report", folder)
    assert code == 0
    page = (folder / "report" / "report.md").read_text() if (folder / "report").is_dir() else ""
    page = page or (folder / "report.md").read_text()
    assert "INCOMPLETE" in page


def test_where_no_answer_can_be_read_no_other_split_is_asked(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: Behaviour(text="", finish_reason="content_filter", logprobs=False)
    with pytest.raises(UserError, match=r"held_out: 0.00 % .* none again; another template, with"):
        run(tmp_path, server.url, model={"remote": {"scoring": "votes", "samples": 2}})
    assert server.total == 2 * QUESTIONS["held_out"] + 1  # one finds out what the endpoint can do


def test_too_little_coverage_leaves_a_run_unfinished(server: StandIn, tmp_path: Path) -> None:
    server.behave = incomplete
    with pytest.raises(
        UserError, match=r"can be read \(most others: (500|filtered)\); the same command sends \d+ requests? again"
    ):
        run(tmp_path, server.url, model={"remote": {"attempts": 1}})
    assert not (tmp_path / "run/scores.json").exists()
    server.behave = lambda number, body: FINE
    before, stored = server.total, len(read_store(tmp_path / "run/answers.jsonl").answers)
    server.counts.clear()
    with pytest.raises(UserError, match=r"others: filtered\); the same command sends none again"):  # it is an answer
        run(tmp_path, server.url)
    assert server.total == TOTAL - stored
    assert before > stored
    scores, _ = run(tmp_path, server.url, model={"remote": {"min_coverage": 0.9}})
    assert server.total == TOTAL - stored
    assert 0.9 < scores.coverage < 1


@pytest.mark.slow
def test_calibration_by_content_free_arguments(server: StandIn, tmp_path: Path) -> None:
    run(tmp_path, server.url)
    plain = read_logits(tmp_path / "run/logits-test.tsv").values
    calibrated = {"verbalizer": {"calibrate": True}}
    answers = {"answers": str(tmp_path / "run/answers.jsonl")}
    run(tmp_path, server.url, formulation=calibrated, model=answers, output=str(tmp_path / "second"))
    assert server.total == TOTAL + 1 + 40
    difference = plain - read_logits(tmp_path / "second/logits-test.tsv").values
    assert np.ptp(difference, axis=0).max() < 1e-5
    assert np.ptp(difference[0]) > 0.1


def test_a_stopped_run_asks_only_the_rest(server: StandIn, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.max_requests 50 is used up; 49 of 60 answers are kept"):
        run(tmp_path, server.url, model={"max_requests": 50})
    assert server.total == 50
    scores, _ = run(tmp_path, server.url)  # a budget changes no score, so it is the same run
    assert server.total == TOTAL + 1
    assert max(server.counts.values()) == 1
    whole, _ = run(tmp_path, server.url, output=str(tmp_path / "whole"))
    assert whole == scores


def thoughts(number: int, body: dict[str, Any]) -> Behaviour:
    """Says something about an argument; answers Yes or No otherwise."""
    last = body["messages"][-1]["content"]
    if last.startswith("What kind of human values"):
        return Behaviour(text="Safety and fun.")
    if "Which of these human values" in last:
        return Behaviour(text="Hedonism, Security: personal")
    return FINE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label_list", "chain_of_thought"])
def test_generated_texts(server: StandIn, tmp_path: Path, kind: str) -> None:
    server.behave = thoughts
    _, printed = run(tmp_path, server.url, formulation={"kind": kind})
    firsts, seconds = 8, (0 if kind == "label_list" else 160)
    assert server.total == 1 + firsts + seconds
    assert "generated texts: answered 5" in printed
    folder = tmp_path / "run"
    lines = [json.loads(line) for line in (folder / "generated-test.jsonl").read_text().splitlines()]
    assert [line["argument"] for line in lines] == list(load_split("test", dir=tmp_path / "data").ids)
    record = json.loads((folder / "language_model.json").read_text())["test"]
    assert record["answers"] == {"answered": 5}
    code, out, _ = command("batch", "write", config_file(tmp_path, server.url, formulation={"kind": kind}), tmp_path)
    assert code == 0
    assert "`jaxvalues train` needs no request" in out
    predict(folder, split="training", out=tmp_path / "out", console=Console(file=io.StringIO()))
    assert read_predictions(tmp_path / "out/predictions-training.tsv").probabilities.shape == (6, 20)


@pytest.mark.slow
def test_batches_of_chains_come_in_two_rounds(server: StandIn, tmp_path: Path) -> None:
    server.behave = thoughts
    file = config_file(tmp_path, server.url, formulation={"kind": "chain_of_thought"})
    for number, (size, says) in enumerate(((8, "then write again"), (160, "batch read"))):
        _, out, _ = command("batch", "write", file, tmp_path / f"batches{number}")
        assert says in out
        (path,) = (tmp_path / f"batches{number}").iterdir()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == size
        results = tmp_path / f"results{number}.jsonl"
        with results.open("w") as target:
            for line in lines:
                body = completion(line["body"], thoughts(1, line["body"]))
                response = {"status_code": 200, "body": body}
                target.write(json.dumps({"custom_id": line["custom_id"], "response": response}) + "\n")
        assert command("batch", "read", file, results)[0] == 0
    _, out, _ = command("train", file, "--dry-run")
    assert "168 requests: 168 have an answer" in out
    before = server.total
    assert command("train", file)[0] == 0
    assert server.total == before


TOO_LONG = Behaviour(
    400, body='{"error": {"message": "This model\'s maximum context length is 9", "code": "context_length_exceeded"}}'
)


def test_examples_are_left_out_where_the_endpoint_finds_them_too_long(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: TOO_LONG if len(body["messages"]) > 5 else FINE
    form = {"examples": {"count": 3}, "descriptions": "name"}
    budget = {"max_requests": 1 + TOTAL + 60}
    with pytest.raises(UserError, match=r"is used up; .* asks only the rest"):
        run(tmp_path, server.url, formulation=form, model=budget)
    limited = server.total
    assert limited == budget["max_requests"]
    file = config_file(tmp_path, server.url, formulation=form)
    printed = " ".join(command("train", file, "--dry-run")[1].split())  # lines break where the path is long
    answered, missing = map(int, re.search(r"(\d+) have an answer in .*?, (\d+) would", printed).groups())
    assert answered + missing == TOTAL
    assert answered == sum(
        json.loads(line)["kind"] == "answer" for line in (tmp_path / "run/answers.jsonl").read_text().splitlines()
    )

    _, printed = run(tmp_path, server.url, formulation=form)
    assert max(server.counts.values()) == 1  # what was refused is not sent again, as what was answered is not
    assert "too long for the endpoint with all examples: 100 requests, asked with 1.0 examples fewer" in printed
    assert "test: 100 of 100 questions answered" in printed
    record = json.loads((tmp_path / "run/language_model.json").read_text())
    assert record["test"]["examples_left_out"] == {"1": 100}
    sizes = [len(json.loads(body)["messages"]) for body in server.counts]
    assert (sizes.count(7), sizes.count(5)) == (TOTAL, TOTAL)
    before = server.total
    run(tmp_path, server.url, formulation=form, output=str(tmp_path / "other"), model={
        "answers": str(tmp_path / "run/answers.jsonl")
    })  # fmt: skip
    assert server.total == before


def test_questions_that_are_too_long_without_any_example_are_missing(server: StandIn, tmp_path: Path) -> None:
    server.behave = lambda number, body: FINE if "water" in str(body) else TOO_LONG
    with pytest.raises(UserError, match="answers none of 20 questions: status 400: This model's maximum context"):
        run(tmp_path, server.url, formulation={"examples": {"count": 1}})
    server.behave = lambda number, body: TOO_LONG if "achievement" in str(body).lower() else FINE
    with pytest.raises(UserError, match=r"95.* of questions have an answer .*\(most others: too long\)"):
        run(tmp_path, server.url, output=str(tmp_path / "second"), model=FULL)


@pytest.mark.slow
def test_examples_and_a_shortlist(server: StandIn, tmp_path: Path) -> None:
    """A first run proposes three categories of each argument; the second one asks only about these, with examples."""
    run(tmp_path, server.url, output=str(tmp_path / "first"))
    server.counts.clear()
    form = {"examples": {"count": 1}, "shortlist": {"run": str(tmp_path / "first"), "count": 3}}
    run(tmp_path, server.url, formulation=form)
    assert server.total == 1 + 8 * 3
    assert all(len(json.loads(body)["messages"]) in (1, 3) for body in server.counts)  # the probe has one
    first, second = (read_logits(tmp_path / name / "logits-test.tsv").values for name in ("first", "run"))
    for row, other in zip(first, second, strict=True):
        assert set(np.flatnonzero(other > -1e4)) == set(np.argsort(-row)[:3])
    assert (tmp_path / "run/examples.json").is_file()


def test_the_key_is_sent_and_nowhere_written(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-test-71F3c0ffee"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    monkeypatch.setenv("OPENAI_LOG", "debug")

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        if "Face" in str(body) and number < 3:
            return Behaviour(500, {"Retry-After": "0"}, f"the key {secret} was no good")
        return FINE

    server.behave = behave
    file = config_file(tmp_path, server.url)
    outputs = [command("train", file, "model.max_requests=40", "model.remote.attempts=2", "model.remote.concurrency=2")]
    outputs += [command("train", file), command("show", file, "--full"), command("train", file, "--dry-run")]
    outputs += [command("report", tmp_path / "run")]
    assert [code for code, _, _ in outputs] == [1, 0, 0, 0, 0]
    server.behave = lambda number, body: Behaviour(401, body=json.dumps({"error": {"message": f"wrong key {secret}"}}))
    outputs += [command("train", file, f"output={tmp_path / 'second'}")]
    assert outputs[-1][0] == 1
    assert server.authorizations == {f"Bearer {secret}"}
    assert not [words for words in outputs if secret in words[1] + words[2]]
    found = texts(tmp_path)
    assert len(found) > 15
    assert [path for path, content in found if secret.encode() in content] == []


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    for words in ((), ("--dry-run",)):
        code, _, err = command("train", config_file(tmp_path, server.url), *words)
        assert code == 1
        assert err == (
            "jaxvalues: model.endpoint needs the package openai, which is not installed: pip install "
            "'jaxvalues[remote]'\n"
        )


def test_what_needs_a_network_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.endpoint names a model that is served elsewhere, and this needs"):
        step_memory(config(tmp_path, "http://localhost:1/v1"))


def test_another_model_in_the_same_folder(server: StandIn, tmp_path: Path) -> None:
    run(tmp_path, server.url)
    kept = rf"output=FOLDER \(model\.answers={tmp_path}/run/answers\.jsonl keeps what was answered\), or remove it"
    with pytest.raises(ConfigError, match=rf"model\.id stand-in-1 → other.*: give another {kept}"):
        train(config(tmp_path, server.url, model={"id": "other"}), Console(file=io.StringIO()))


@pytest.mark.slow
def test_a_study_of_endpoints(server: StandIn, tmp_path: Path) -> None:
    """Systems at an endpoint stand in a study, and what they miss is said in its results and report."""
    server.behave = incomplete
    base = config_file(tmp_path, server.url, model={"remote": {"min_coverage": 0.5, "attempts": 1}})
    study = tmp_path / "study.yaml"
    content = {
        "question": "Which template is better?",
        "base": str(base),
        "output": str(tmp_path / "study"),
        "scientific": {"systems": {"names": {}, "definitions": {"formulation.descriptions": "definition"}}},
        "repeated": {"seed": [0]},
        "report": ["test"],
    }
    study.write_text(yaml.safe_dump(content))
    code, out, err = command("compare", study)
    assert (code, err) == (0, ""), out
    assert "INCOMPLETE" in out
    results = json.loads((tmp_path / "study/results.json").read_text())
    assert 0.5 < results["systems"]["names"]["runs"][0]["coverage"]["test"] < 1
    assert any("INCOMPLETE" in note for note in results["notes"])
