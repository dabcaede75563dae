"""metrics.jsonl: one object a line, and after a resume as if nothing had happened."""

from __future__ import annotations

import json
import resource
import struct
import time
from pathlib import Path

import pytest
import tiny

from jaxvalues.errors import ConfigError, UserError
from jaxvalues.training.metrics import MetricsWriter


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def write(folder: Path, start: int, steps: range) -> None:
    writer = MetricsWriter(folder, tiny.config(), start)
    for step in steps:
        writer.write(step, "train", {"loss": step / 10})
    writer.close()


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, tiny.config())
    writer.write(3, "held_out", {"official_f1": 0.25})
    assert lines(tmp_path) == [{"step": 3, "kind": "held_out", "official_f1": 0.25}]
    writer.close()


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 4, range(5, 10))
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(step, step / 10) for step in range(1, 10)]


def test_resuming_drops_a_half_written_line(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 5))
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + '{"step": 4, "ki', encoding="utf-8")
    write(tmp_path, 4, range(5, 6))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_run_from_the_start_begins_the_file_anew(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 5))
    write(tmp_path, 0, range(1, 3))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, tiny.config({"logging": {"tensorboard": True}}))
    writer.write(1, "train", {"loss": 0.5})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


def board_steps(folder: Path) -> list[int]:
    """The steps that TensorBoard shows: after a restart at a step, what was written from it on before is gone."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    steps: list[int] = []
    for file in sorted((folder / "tensorboard").iterdir()):
        records = file.read_bytes()
        while records:  # length, its checksum, event, its checksum
            (size,) = struct.unpack("<Q", records[:8])
            event, records = Event.FromString(records[12 : 12 + size]), records[16 + size :]
            if event.session_log.status == SessionLog.START:
                steps = [step for step in steps if step < event.step]
            steps += [event.step] * len(event.summary.value)
    return steps


def test_tensorboard_shows_no_step_twice(tmp_path: Path) -> None:
    config = tiny.config({"logging": {"tensorboard": True}})
    for start, last in ((0, 7), (0, 4), (2, 6)):  # killed before the first checkpoint; then after it
        writer = MetricsWriter(tmp_path, config, start)
        for step in range(start + 1, last + 1):
            writer.write(step, "train", {"loss": step / 10})
        writer.close()
        assert board_steps(tmp_path) == list(range(1, last + 1))
        time.sleep(1.1)  # the name of a file of events holds the second


def test_wandb_that_is_not_installed_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"logging.wandb needs the extra: pip install 'jaxvalues\[wandb\]'"):
        MetricsWriter(tmp_path, tiny.config({"logging": {"wandb": "project"}}))


def test_a_resumed_run_continues_its_run_at_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict] = []

    class Wandb:
        __spec__ = object()

        @staticmethod
        def init(**given: object) -> Wandb:
            begun.append(given)
            return Wandb()

        def log(self, values: dict, step: int) -> None: ...

        def finish(self) -> None: ...

    monkeypatch.setitem(__import__("sys").modules, "wandb", Wandb)
    config = tiny.config({"logging": {"wandb": "project"}})
    for step in (0, 3, 7, 0):
        MetricsWriter(tmp_path, config, step).close()
    ids = [given["id"] for given in begun]
    assert len(set(ids)) == 1  # also where it starts anew, as after a kill before the first checkpoint
    other = tmp_path / "other"
    other.mkdir()
    MetricsWriter(other, config).close()
    assert begun[-1]["id"] != ids[0]
    assert {given["resume"] for given in begun} == {"allow"}


def write_until_full(writer: MetricsWriter) -> None:
    for step in range(1, 100):
        writer.write(step, "train", {"loss": 0.5})


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_disk_that_is_full_is_one_sentence_and_the_run_resumes(tensorboard: bool, tmp_path: Path) -> None:
    config = tiny.config({"logging": {"tensorboard": tensorboard}})
    writer, limit = MetricsWriter(tmp_path, config), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limit[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\); make space, then run the same"):
            write_until_full(writer)
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    written = (tmp_path / "metrics.jsonl").read_bytes().count(b"\n")
    assert 5 < written < 50
    again = MetricsWriter(tmp_path, config, written - 2)
    again.write(written - 1, "train", {"loss": 0.25})
    again.close()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, written))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: is not valid JSON"),
        ("[]", "line 2: has no `step`, expected an integer"),
        ('{"step": "x"}', "line 2: `step` is 'x', expected an integer"),
        ("[" * 20_000, "line 2: is nested too deeply"),
    ],
)
def test_lines_that_no_run_wrote(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "kind": "train"}}\n{line}\n')
    with pytest.raises(UserError, match=said):
        MetricsWriter(tmp_path, tiny.config(), step=1)
