"""A run that asks an endpoint is killed at random: nothing that was stored is asked again, and nothing is lost."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from remote_runs import QUESTIONS, config_file
from runs import finish, start
from stand_in import BROKEN, FINE, LIMITED, Behaviour, StandIn, name_of

from jaxvalues.remote.store import read_store

AT_ONCE = 6


def behave(number: int, body: dict[str, Any]) -> Behaviour:
    """Slow enough to be killed on the way; now and then it limits and fails."""
    fault = {0: LIMITED, 1: BROKEN}.get(hash(name_of(body)) % 12)
    return fault if fault is not None and number == 1 else Behaviour(seconds=0.05)


def stored_bodies(file: Path) -> set[str]:
    """The bodies of the requests whose answers are in whole lines of the store, whatever else is."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    records = [json.loads(line) for line in lines]
    return {name_of(record["request"]) for record in records if record["kind"] == "answer"}


def killed_and_resumed(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill the command so often at random; then let it finish, and look at what the server was asked."""
    draws, total = random.Random(seed), sum(QUESTIONS.values())
    store = tmp_path / "run/answers.jsonl"
    with StandIn(behave) as server:
        file = config_file(tmp_path, server.url, model={"remote": {"concurrency": AT_ONCE}})
        before: dict[str, int] = {}
        for number in range(kills):
            process = start("train", file, NO_PROXY="127.0.0.1")
            # Anywhere from before the first request to shortly before the last one.
            wanted = draws.randrange(total // kills + 1)
            asked, deadline = server.total, time.monotonic() + 120
            while server.total < asked + wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(draws.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.2)  # the server answers what was under way to nobody
            known = stored_bodies(store)
            again = [body for body in before if server.counts[body] != before[body]]
            assert again == [], f"kill {number}: asked again although it was stored"
            assert before.keys() <= known, f"kill {number}: an answer was lost"
            before = {body: server.counts[body] for body in known}

        code, out, err = finish(start("train", file, NO_PROXY="127.0.0.1"))
        assert code == 0, err
        assert f"test: {QUESTIONS['test']} of {QUESTIONS['test']} questions answered" in out
        assert [body for body in before if server.counts[body] != before[body]] == []
        assert len(stored_bodies(store)) == total
        assert read_store(store).damaged == 0

        # Asked more often than its fault explains: only what was under way at a kill.
        faults = Counter({body: 1 for body in server.counts if behave(1, json.loads(body)) in (LIMITED, BROKEN)})
        surplus = server.counts - faults
        repeated = sum(number - 1 for number in surplus.values() if number > 1)
        assert repeated <= kills * AT_ONCE
        killed = (tmp_path / "run/scores.json").read_bytes(), (tmp_path / "run/logits-test.tsv").read_bytes()

        server.behave = lambda number, body: FINE
        code, _, err = finish(start("train", file, f"output={tmp_path / 'whole'}", NO_PROXY="127.0.0.1"))
        assert code == 0, err
        whole = (tmp_path / "whole/scores.json").read_bytes(), (tmp_path / "whole/logits-test.tsv").read_bytes()
        assert killed == whole


@pytest.mark.slow
def test_killed_twice(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, kills=2, seed=0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(3))
def test_killed_ten_times(tmp_path: Path, seed: int) -> None:
    killed_and_resumed(tmp_path, kills=10, seed=seed + 1)
