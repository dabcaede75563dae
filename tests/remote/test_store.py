"""The answer store: what is written is read again, whatever happens to the process or the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_in import completion

from jaxvalues.errors import UserError
from jaxvalues.remote.messages import Request
from jaxvalues.remote.store import AnswerStore, read_store

URL = "http://localhost:1/v1"


def request(text: str, sample: int = 0) -> Request:
    return Request(URL, {"model": "m", "messages": [{"role": "user", "content": text}], "logprobs": True}, sample)


def fill(path: Path, *texts: str) -> None:
    with AnswerStore(path) as store:
        for text in texts:
            store.add_answer(request(text), completion(request(text).payload), attempts=2, latency=0.25)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    fill(path, "one", "zwei ≠ 2")
    with AnswerStore(path) as store:
        store.add_failure(request("three"), "timeout", 4)
        store.add_failure(request("three"), "timeout", 3)
        store.add_endpoint(URL, "m", {"seed": False})
        store.add_answer(request("one", sample=1), completion(request("one").payload), attempts=1, latency=0.0)
    contents = read_store(path)
    assert contents.answers.keys() == {one.key for one in (request("one"), request("zwei ≠ 2"), request("one", 1))}
    stored = contents.answers[request("one").key]
    assert (stored.attempts, stored.latency, stored.answer.completion_tokens) == (2, 0.25, 1)
    assert contents.failed == {request("three").key: 7}
    assert contents.endpoints == {(URL, "m"): {"seed": False}}
    assert contents.damaged == 0


@pytest.mark.parametrize("kept", [1, 9, 100, -1])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, "one", "two", "three")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:kept])
    assert read_store(path).answers.keys() == {request("one").key, request("two").key}
    fill(path, "four")
    contents = read_store(path)
    assert contents.answers.keys() == {request(text).key for text in ("one", "two", "four")}
    assert contents.damaged == 0


def test_a_file_of_a_torn_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"kind": "answer", "key": "' + b"x" * 200_000)
    fill(path, "one")
    assert read_store(path).answers.keys() == {request("one").key}


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    fill(path, "one", "two", "three")
    one, two, three = path.read_text().splitlines()
    edited = two.replace('"two"', '"TWO"')  # its key is no longer that of what was sent
    path.write_text("\n".join((one, edited, '{"kind": "other"}', "garbage", three)) + "\n")
    contents = read_store(path)
    assert contents.answers.keys() == {request("one").key, request("three").key}
    assert contents.damaged == 3


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\nno line end")
    with pytest.raises(UserError, match=r"notes.txt: begins with b'dear diary', so it is no store"):
        AnswerStore(path)
    assert path.read_text() == "dear diary\nno line end"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerStore(path), pytest.raises(UserError, match="is in use by another run"):
        AnswerStore(path)
    fill(path, "one")  # and free again


def test_a_secret_is_in_no_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerStore(path, secret="sk-1234567890") as store:
        response = completion(request("one").payload) | {"warning": "your key sk-1234567890 is old"}
        store.add_answer(request("one"), response, attempts=1, latency=0.0)
        store.add_failure(request("two"), "refused sk-1234567890", 1)
    assert b"sk-1234567890" not in path.read_bytes()
    assert read_store(path).answers.keys() == {request("one").key}


def test_a_store_from_before_slashes_were_stripped(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", request("one")
    with AnswerStore(path) as store:
        earlier = Request(f"{URL}/", asked.payload)
        store.add_answer(earlier, completion(asked.payload), attempts=1, latency=0.0)
        store.add_endpoint(f"{URL}/", "m", {"seed": False}, 2)
    contents = read_store(path)
    assert contents.answers.keys() == {asked.key}
    assert (contents.endpoints, contents.probes) == ({(URL, "m"): {"seed": False}}, {(URL, "m"): 2})


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(UserError, match=r"answers\.jsonl: cannot be"):
        AnswerStore(tmp_path / "answers.jsonl")
