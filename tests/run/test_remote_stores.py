"""Runs at an endpoint whose stores are from an earlier version, or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from remote_runs import QUESTIONS, config_file, run
from runs import command
from stand_in import FINE, Behaviour, StandIn

from jaxvalues.errors import UserError
from jaxvalues.remote.messages import Request

TOTAL = sum(QUESTIONS.values())


def test_a_run_from_before_slashes_were_stripped_goes_on(server: StandIn, tmp_path: Path) -> None:
    """Its folder and its store name the endpoint with the slash of the config."""
    url = f"{server.url}/"
    with pytest.raises(UserError, match="is used up"):
        run(tmp_path, url, model={"max_requests": 50})
    earlier = tmp_path / "run"
    for name in ("config.yaml", "environment.json"):
        text = (earlier / name).read_text()
        (earlier / name).write_text(text.replace(server.url, url))
    lines = []
    for line in (earlier / "answers.jsonl").read_text().splitlines():
        record = json.loads(line) | {"endpoint": url}
        if record["kind"] == "answer":
            record["key"] = Request(url, record["request"]).key
        lines.append(json.dumps(record) + "\n")
    (earlier / "answers.jsonl").write_text("".join(lines))
    run(tmp_path, url)
    assert server.total == TOTAL + 1


def test_one_of_a_kind_is_one(server: StandIn, tmp_path: Path) -> None:
    file, store = config_file(tmp_path, server.url), tmp_path / "run/answers.jsonl"
    assert command("train", file, "model.max_requests=20")[0] == 1
    first, *rest = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join([first, b'{"kind": "other"}\n', *rest]))
    last: list[str] = []

    def behave(number: int, body: dict[str, Any]) -> Behaviour:
        text = str(body["messages"])
        if server.total > TOTAL - 10 and not last:
            last.append(text)
        return Behaviour(text="", finish_reason="content_filter", logprobs=False) if text in last else FINE

    server.behave = behave
    code, out, err = command("train", file, "model.remote.min_coverage=0.9")
    out = " ".join(out.split())
    assert (code, err) == (0, "")
    assert f"WARNING: 1 line of {store} is damaged, and left out" in out
    assert "1 is missing (filtered 1)" in out
