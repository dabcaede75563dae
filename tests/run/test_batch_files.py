"""Batch files: what they hold, and results that make requests needless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from remote_runs import QUESTIONS, config_file, run
from runs import command
from stand_in import FINE, MODEL, Behaviour, StandIn, completion

from jaxvalues.remote import batches
from jaxvalues.remote.messages import Request
from jaxvalues.remote.store import read_store

TOTAL = sum(QUESTIONS.values())


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


def result_of(line: dict[str, Any], how: Behaviour = FINE, status: int = 200) -> str:
    """What a batch service returns for one line."""
    response = {"status_code": status, "request_id": "r", "body": completion(line["body"], how)}
    return json.dumps({"id": "b", "custom_id": line["custom_id"], "response": response, "error": None})


def said(*words: object) -> tuple[int, str, str]:
    """Run a command; what it printed is on one line, for lines break where paths have any length."""
    code, out, err = command(*words)
    return code, " ".join(out.split()), err


def test_results_make_requests_needless(server: StandIn, tmp_path: Path) -> None:
    file, folder = config_file(tmp_path, server.url), tmp_path / "batches"
    code, out, err = said("batch", "write", file, folder)
    assert (code, err) == (0, "")
    assert server.total == 1  # which finds out what the endpoint can do
    lines = lines_of(folder)
    assert len(lines) == TOTAL
    assert f"remote-01.jsonl: {TOTAL} requests" in out
    for line in lines:
        assert line.keys() == {"custom_id", "method", "url", "body"}
        assert (line["method"], line["url"], line["body"]["model"]) == ("POST", "/v1/chat/completions", MODEL)
        assert line["custom_id"] == Request(server.url, line["body"]).key
    assert len({line["custom_id"] for line in lines}) == TOTAL

    # Results come in any order, some are errors, some of another run, some lines are damaged.
    results, errors = tmp_path / "results.jsonl", tmp_path / "errors.jsonl"
    fine = [result_of(line) for line in reversed(lines[4:])]
    foreign = result_of({**lines[0], "custom_id": "0" * 64})
    results.write_text("\n".join([*fine, foreign, '{"custom_id": "', ""]))
    faults = [
        json.dumps({"custom_id": lines[0]["custom_id"], "response": None, "error": {"code": "batch_expired"}}),
        result_of(lines[1], status=500),
        result_of(lines[2], Behaviour(echo="other")),
        result_of(lines[3], Behaviour(logprobs=False)),
    ]
    errors.write_text("\n".join(faults))
    code, out, err = said("batch", "read", file, results, errors)
    assert (code, err) == (0, "")
    assert f"{TOTAL - 4} answers are added to {tmp_path / 'run/answers.jsonl'}" in out
    assert "1 result is not of this run" in out
    assert "5 results are no answers" in out
    code, out, _ = said("batch", "read", file, results)
    assert code == 0
    assert f"0 answers are added to {tmp_path / 'run/answers.jsonl'}; {TOTAL - 4} were there already" in out

    code, out, _ = said("batch", "write", file, tmp_path / "rest")
    assert [line["custom_id"] for line in lines_of(tmp_path / "rest")] == [line["custom_id"] for line in lines[:4]]
    server.counts.clear()
    code, _, err = said("train", file)
    assert (code, err) == (0, "")
    assert server.total == 4
    direct, _ = run(tmp_path, server.url, output=str(tmp_path / "direct"))
    assert json.loads((tmp_path / "run/scores.json").read_text())["splits"]["test"] == direct.to_json()
    code, out, _ = said("batch", "write", file, tmp_path / "none")
    assert f"all {TOTAL} requests have an answer" in out
    assert not (tmp_path / "none").exists()


def test_samples_have_keys_of_their_own(server: StandIn, tmp_path: Path) -> None:
    votes = {"remote": {"scoring": "votes", "samples": 3}, "answers": str(tmp_path / "shared.jsonl")}
    said("batch", "write", config_file(tmp_path, server.url, model=votes), tmp_path / "batches")
    lines = lines_of(tmp_path / "batches")
    assert len({line["custom_id"] for line in lines}) == len(lines) == 3 * TOTAL
    results = tmp_path / "results.jsonl"
    results.write_text("\n".join(map(result_of, lines)))
    assert said("batch", "read", config_file(tmp_path, server.url, model=votes), results)[0] == 0
    assert len(read_store(tmp_path / "shared.jsonl").answers) == 3 * TOTAL


def test_files_of_an_earlier_writing_are_removed(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_REQUESTS", 60)
    file, folder = config_file(tmp_path, server.url), tmp_path / "batches"
    said("batch", "write", file, folder)
    lines = lines_of(folder)
    others = [folder / "remote-09.jsonl", folder / "remote-4.jsonl", folder / "other-03.jsonl"]
    for other, text in zip(others, ("notes", '{"custom_id": "x"}', '{"custom_id": "x"}'), strict=True):
        other.write_text(text)
    results = tmp_path / "results.jsonl"
    odd = ['{"custom_id": ["x"]}', '{"custom_id": {"x": 1}}', '{"custom_id": null}']
    results.write_text("\n".join([*map(result_of, lines[:60]), *odd]))
    code, out, err = said("batch", "read", file, results)
    assert (code, err) == (0, "")
    assert "3 results are no answers (damaged line 3); `jaxvalues train` asks these questions again" in out
    code, out, _ = said("batch", "write", file, folder)
    assert "remote-03.jsonl: removed" in out
    assert all(other.exists() for other in others)
    for other in others:
        other.unlink()
    assert [line["custom_id"] for line in lines_of(folder)] == [line["custom_id"] for line in lines[60:]]
    results.write_text("\n".join(map(result_of, lines[60:])))
    said("batch", "read", file, results)
    assert said("batch", "write", file, folder)[0] == 0
    assert list(folder.iterdir()) == []


def test_results_whose_names_are_from_before_slashes_were_stripped(server: StandIn, tmp_path: Path) -> None:
    file, folder = config_file(tmp_path, f"{server.url}/"), tmp_path / "batches"
    said("batch", "write", file, folder)
    earlier = [{**line, "custom_id": Request(f"{server.url}/", line["body"]).key} for line in lines_of(folder)]
    results = tmp_path / "results.jsonl"
    results.write_text("\n".join(map(result_of, earlier)))
    assert f"{TOTAL} answers are added" in said("batch", "read", file, results)[1]
    assert f"{TOTAL} were there already" in said("batch", "read", file, results)[1]


def test_files_are_cut_at_the_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Request("u", {"model": "m", "messages": [{"role": "user", "content": f"{i:03}"}]}) for i in range(25)]
    assert batches.MOST_REQUESTS == 50_000
    monkeypatch.setattr(batches, "MOST_REQUESTS", 10)
    assert [len(lines) for lines in batches.batch_lines(asked)] == [10, 10, 5]
    size = len(json.dumps(next(batches.batch_lines(asked[:1]))[0])) + 1
    monkeypatch.setattr(batches, "MOST_BYTES", 4 * size)
    assert [len(lines) for lines in batches.batch_lines(asked)] == [4] * 6 + [1]


def test_bad_usage(server: StandIn, tmp_path: Path) -> None:
    file = config_file(tmp_path, server.url)
    results = tmp_path / "results.jsonl"
    results.write_text('{"custom_id": "x"}\n')
    quickstart = Path(__file__).parents[2] / "configs/quickstart.yaml"
    for words, code, sentence in (
        (["read", file, results], 1, "`jaxvalues batch write` comes first"),
        (["write", file, tmp_path / "batches"], 0, ""),
        (["read", file, results], 1, "answers a request of this config and its endpoint"),
        (["read", file, tmp_path / "none.jsonl"], 1, "none.jsonl: cannot be read (No such file or directory)"),
        (["read", file, "seed=1"], 2, "give at least one file of results"),
        (["write", quickstart, tmp_path / "batches"], 2, "set model.endpoint=URL"),
        (["write", file, tmp_path / "batches", "ensemble={seeds: [0, 1]}"], 2, "batch files are of one run"),
    ):
        ended, _, err = said("batch", *words)
        assert ended == code, err
        assert sentence in err


def test_questions_that_are_too_long_are_written_with_fewer_examples(server: StandIn, tmp_path: Path) -> None:
    form = {"examples": {"count": 2}, "descriptions": "name"}
    file, folder, results = config_file(tmp_path, server.url, formulation=form), tmp_path / "b", tmp_path / "r.jsonl"
    for examples in (2, 1):
        assert said("batch", "write", file, folder)[0] == 0
        lines = lines_of(folder)
        assert {len(line["body"]["messages"]) for line in lines} == {2 * examples + 1}
        if examples == 2:
            refused = {"status_code": 400, "body": {"error": {"code": "context_length_exceeded", "message": "m"}}}
            results.write_text(
                "\n".join(
                    json.dumps({"custom_id": line["custom_id"], "response": refused, "error": None}) for line in lines
                )
            )
            code, out, err = said("batch", "read", file, results)
            assert f"{TOTAL} results are no answers (too long {TOTAL})" in out
            assert (code, err) == (0, "")
            code, out, err = said("batch", "read", file, results)
            assert f"{TOTAL} were there already" in out
            assert (code, err) == (0, "")
    results.write_text("\n".join(map(result_of, lines)))
    assert said("batch", "read", file, results)[0] == 0
    before = server.total
    code, out, _ = said("train", file)
    assert (code, server.total) == (0, before)
    assert "100 requests, asked with 1.0 examples fewer" in out


@pytest.mark.parametrize("name", ["write", "read"])
def test_help_has_an_example(name: str) -> None:
    code, out, _ = said("batch", name, "--help")
    assert code == 0
    assert f"Example: jaxvalues batch {name}" in out
