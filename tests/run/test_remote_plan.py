"""What a dry run says of a run at an endpoint, and that the run keeps to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from remote_runs import QUESTIONS, config_file
from runs import command
from stand_in import MODEL, StandIn
from test_remote_runs import thoughts

from jaxvalues.remote.store import read_store

TOTAL = sum(QUESTIONS.values())


def dry_run(file: Path, *words: str) -> str:
    code, out, err = command("train", file, "--dry-run", *words)
    assert (code, err) == (0, "")
    return " ".join(out.split())


def test_a_dry_run_sends_and_writes_nothing(server: StandIn, tmp_path: Path) -> None:
    prices = {"remote": {"input_price": 2.0, "output_price": 8.0}, "max_cost": 0.001, "max_requests": 100}
    file = config_file(tmp_path, server.url, model=prices)
    code, out, err = command("train", file, "--dry-run")
    out = " ".join(out.split())  # lines break where paths have any length
    assert (code, err) == (0, "")
    assert server.total == 0
    assert not (tmp_path / "run").exists()
    assert "160 requests: 0 have an answer" in out
    assert "160 would be sent, after one or two test requests" in out
    assert "OPENAI_API_KEY is not set" in out
    assert "tokens of prompts, at most 160 of answers" in out
    assert "at the prices of the config: model.max_cost 0.001 may not be enough" in out
    assert "model.max_requests 100 is not enough" in out
    code, _, err = command("train", file)
    assert code == 1
    assert err.count("\n") == 1
    assert "is used up" in err
    _, out, _ = command("train", file, "--dry-run")
    stored = len(read_store(tmp_path / "run/answers.jsonl").answers)
    assert f"160 requests: {stored} ha" in out
    assert f"{160 - stored} would be sent\n" in out


def test_show(server: StandIn, tmp_path: Path) -> None:
    code, out, _ = command("show", config_file(tmp_path, server.url))
    out = " ".join(out.split())
    assert code == 0
    assert "held_out 3, test 5" in out
    assert f"{MODEL} at {server.url}" in out
    assert server.total == 0


def test_the_test_request_counts(server: StandIn, tmp_path: Path) -> None:
    file = config_file(tmp_path, server.url)
    assert "is not enough for all of them" in dry_run(file, f"model.max_requests={TOTAL}")
    assert "is not enough" not in dry_run(file, f"model.max_requests={TOTAL + 1}")
    assert command("train", file, f"model.max_requests={TOTAL}")[0] == 1
    assert server.total == TOTAL
    assert "is not enough" in dry_run(file, f"model.max_requests={TOTAL}")
    assert command("train", file, f"model.max_requests={TOTAL}")[0] == 1
    assert server.total == TOTAL
    assert "is not enough" not in dry_run(file, f"model.max_requests={TOTAL + 1}")
    assert command("train", file, f"model.max_requests={TOTAL + 1}")[0] == 0
    assert server.total == TOTAL + 1
    assert json.loads((tmp_path / "run/endpoint.json").read_text())["requests"] == TOTAL + 1


def test_answers_about_later_splits_count_from_the_first_request_on(server: StandIn, tmp_path: Path) -> None:
    file = config_file(tmp_path, server.url)
    assert command("train", file)[0] == 0
    store = tmp_path / "run/answers.jsonl"
    first, *answers = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join([first, *answers[60:]]))  # without those about the held-out part, which comes first
    (tmp_path / "run/scores.json").unlink()
    (tmp_path / "run/manifest.json").unlink()
    before = server.total
    code, _, err = command("train", file, "model.max_requests=110")
    assert code == 1
    assert "model.max_requests 110 is used up" in err
    assert server.total == before + 110 - 101


@pytest.mark.slow
def test_second_turns_count_before_the_first_are_answered(server: StandIn, tmp_path: Path) -> None:
    server.behave = thoughts
    prices = {"input_price": 2.0, "output_price": 8.0}
    file = config_file(tmp_path, server.url, formulation={"kind": "chain_of_thought"}, model={"remote": prices})
    said = dry_run(file, "model.max_requests=168")
    assert "168 requests: 0 have an answer" in said
    assert "8 would be sent, after one or two test requests, and then about 160 that depend on their answers" in said
    assert "answers that are quoted count in full length" in said
    assert "model.max_requests 168 is not enough" in said
    assert "may not be enough" in dry_run(file, "model.max_cost=0.1")
    assert "enough" not in dry_run(file, "model.max_requests=169", "model.max_cost=1")
    assert command("train", file, "model.max_requests=169")[0] == 0
    assert server.total == 169
    assert len(read_store(tmp_path / "run/answers.jsonl").answers) == 168
