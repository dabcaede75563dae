"""Malformed inputs by kind: files, paths and values that others may hand to a command, each with what it is called.

A case changes a fresh copy of the `World` and returns the words of a command that must refuse it.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Words = list[object]


class World(NamedTuple):
    """What a case may break, all below one folder."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name

    @property
    def train(self) -> Words:
        """Training from the checkpoint `base` with the data `data`."""
        return ["train", self.folder / "small.yaml", f"output={self.folder / 'new'}"]

    @property
    def resume(self) -> Words:
        """Resuming the unfinished run `half`."""
        return ["train", self.folder / "small.yaml", f"output={self.folder / 'half'}"]

    @property
    def predict(self) -> Words:
        return ["predict", self.folder / "run", "--split", "test", "--out", self.folder / "found"]


class Case(NamedTuple):
    """`make` breaks something and returns the command; `needs` names what the case reads of the world."""

    name: str
    needs: tuple[str, ...]
    make: Callable[[World], Words]

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


def loop(path: Path) -> None:
    remove(path)
    path.symlink_to(path)


def as_folder(path: Path) -> None:
    remove(path)
    path.mkdir(parents=True)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


DEEP = 20_000
BYTES: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"\x93\xffgarbage\x00\x01",
    "half an object": b'{"a": 1, "b"',
    "two documents": b'{"a": 1} {"b": 2}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"a": 1e999999}',
    "not a number": b'{"a": NaN}',
    "a NUL": b'{"a": "\x00"}',
    "half a character": b'{"a": "\\ud800"}',
    "latin-1": '{"a": "ü"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "a list": b"[]",
    "null": b"null",
    "a string": b'"model"',
    "a number": b"3",
}
PLACES: dict[str, Callable[[Path], None]] = {"a folder": as_folder, "a loop of links": loop}
VALUES: dict[str, Any] = {"null": None, "a list": [[1]], "an object": {"x": {}}, "a string": "x", "a number": -7.5}

JSON_FILES: dict[str, tuple[tuple[str, ...], str, str]] = {  # {file: (needs, command, keys to give other types)}
    "base/config.json": (("base", "data"), "train", "model_type"),
    "base/tokenizer.json": (("base", "data"), "train", "model"),
    "base/tokenizer_config.json": (("base", "data"), "train", ""),
    "base/model.safetensors.index.json": (("base", "data"), "train", "weight_map"),
    "run/environment.json": (("run", "data"), "combine", "base data"),
    "run/scores.json": (("run", "other", "data"), "finished", "held_out splits"),
    "run/thresholds.json": (("run", "data"), "predict", "logits"),
    "run/model/config.json": (("run", "data"), "predict", "model_type"),
    "run/manifest.json": (("run", "data"), "predict", "sha256"),
    "run/checkpoints/chosen.json": (("run", "data"), "predict", "step sha256"),
    "run/tokenizer/tokenizer.json": (("run", "data"), "predict", "model"),
    "half/environment.json": (("half", "base", "data"), "resume", "base data"),
    "half/model/config.json": (("half", "base", "data"), "resume", "model_type"),
    "half/metrics.jsonl": (("half", "base", "data"), "resume", ""),
    "both/ensemble.json": (("both", "run", "other", "data"), "nested", "systems"),
    "adapter/adapter_config.json": (("adapter", "base", "data"), "warm", "peft_type r"),
    "export/config.json": (("export",), "import", "jaxvalues model_type id2label"),
    "export/scores.json": (("export",), "import", "step held_out splits"),
    "export/environment.json": (("export",), "import", ""),
}


def words_of(command: str, world: World) -> Words:
    """The command that reads the file of a case."""
    return {
        "train": world.train,
        "resume": world.resume,
        "predict": world.predict,
        "combine": ["ensemble", world.run, world.folder / "other", "--out", world.folder / "found"],
        "finished": ["ensemble", world.run, world.folder / "other", "--out", world.folder / "found"],
        "nested": ["ensemble", world.folder / "both", world.run, "--out", world.folder / "found"],
        "warm": [*world.train, "tuning={method: lora, init_from: %s}" % (world.folder / "adapter")],
        "import": ["import", world.folder / "export", "--out", world.folder / "found"],
    }[command]


def unguarded(file: Path) -> None:
    """Let a run be one without checksums, so that a file is found faulty by what it holds."""
    if file.parts[-2:] != ("checkpoints", "chosen.json") and file.name != "manifest.json":
        for root in file.parents[:2]:
            (root / "manifest.json").unlink(missing_ok=True)
    elif file.name == "chosen.json":
        (file.parents[1] / "manifest.json").unlink(missing_ok=True)


def json_cases() -> Iterator[Case]:
    for name, (needs, command, keys) in JSON_FILES.items():

        def file_case(change: Callable[[Path], None], name: str = name, command: str = command) -> Any:
            def make(world: World) -> Words:
                file = world.folder / name
                unguarded(file)
                if file.name.endswith("index.json"):
                    file.write_text('{"weight_map": {"x": "model.safetensors"}}', encoding="utf-8")
                change(file)
                return words_of(command, world)

            return make

        for what, content in BYTES.items():
            if name.endswith(".jsonl") and what in ("empty", "half an object"):  # as a kill leaves it
                continue
            end = b"\n" if name.endswith(".jsonl") else b""
            yield Case(f"json: {name} is {what}", needs, file_case(lambda file, c=content + end: file.write_bytes(c)))
        for what, place in PLACES.items():
            yield Case(f"json: {name} is {what}", needs, file_case(place))
        for key in keys.split():
            for what, value in VALUES.items():
                if fits(key, value):
                    continue

                def change(file: Path, key: str = key, value: Any = value) -> None:
                    content = json.loads(file.read_text(encoding="utf-8"))
                    file.write_text(json.dumps({**content, key: value}), encoding="utf-8")

                yield Case(f"json: {key} of {name} is {what}", needs, file_case(change))

            def without(file: Path, key: str = key) -> None:
                content = json.loads(file.read_text(encoding="utf-8"))
                del content[key]
                file.write_text(json.dumps(content), encoding="utf-8")

            if key not in ("splits",) or "run" in name:
                yield Case(f"json: {key} of {name} is absent", needs, file_case(without))


def fits(key: str, value: Any) -> bool:
    """Values that a file may hold after all: weights by another name are refused by what they lack."""
    return key == "base" and value is None


YAML: dict[str, str] = {
    "garbage": "\x7b\x7b\x7b: [",
    "a tab": "\tname: x",
    "a colon too much": "name: a: b",
    "a list": "[]",
    "a string": "just words",
    "a number": "3",
    "deep lists": "name: " + "[" * DEEP,
    "deep mappings": "model: " + "{a: " * DEEP,
    "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "a merge bomb": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{','.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "an alias of itself": "data: &a {dir: *a}",
    "an alias of nothing": "name: *nowhere",
    "digits": "seed: " + "9" * 5000,
    "hexadecimal digits": "seed: 0x" + "f" * 5000,
    "a date with a tag": "name: !!timestamp 2024-99-99",
    "a tag of Python": "name: !!python/object/apply:os.system [ls]",
    "a tag that is none": "name: !!int abc",
    "binary": "name: !!binary '%%%'",
    "a NUL": 'name: "a\\0b"',
    "half a character": 'name: "\\ud800"',
    "a bell": "name: \x07",
    "a number as key": "1: 2",
    "a list as key": "[a]: 2",
    "the same key twice": "seed: 1\nseed: 2",
    "two documents": "---\nseed: 1\n---\nseed: 2",
    "forty thousand keys": "\n".join(f"k{number}: 1" for number in range(40_000)),
    "a megabyte": "name: " + "x" * 2**20,
    "a base that is a list": "base: [a]",
    "a base that is itself": "base: x.yaml",
    "a base that is absent": "base: nowhere.yaml",
    "a base that is a folder": "base: data",
    "a section that is a list": "data: []",
    "a section that is a date": "data: 2024-99-99",
    "a negative seed": "seed: -1",
    "epochs that are a word": "training: {epochs: many}",
    "buckets that are a number": "data: {buckets: 3}",
    "a bool that is a date": "model: {path: x, remat: 2024-01-01}",
    "an infinite rate": "optimizer: {learning_rate: .inf}",
    "a rate that is no number": "optimizer: {learning_rate: .nan}",
    "a split that is a mapping": "data: {report: {a: 1}}",
}
OVERRIDES = (
    "x",
    "=",
    "a=1",
    "seed",
    "seed=[",
    "seed=" + "9" * 5000,
    "a." * 3000 + "b=1",
    "base=x.yaml",
    "seed=2024-99-99",
)
OVERRIDES += (
    "model=3",
    "data.report=[[1]]",
    "training.epochs=1e400",
    "data.dir=!!binary aGk=",
    "seed=*a",
    "seed=" + "[" * DEEP,
)


def yaml_cases() -> Iterator[Case]:
    for what, text in YAML.items():

        def as_config(world: World, text: str = text) -> Words:
            (world.folder / "x.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
            return ["train", world.folder / "x.yaml", f"output={world.folder / 'new'}"]

        def as_base(world: World, text: str = text) -> Words:
            (world.folder / "x.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
            (world.folder / "y.yaml").write_text("base: x.yaml\n", encoding="utf-8")
            return ["show", world.folder / "y.yaml"]

        def of_run(world: World, text: str = text) -> Words:
            (world.run / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
            (world.run / "manifest.json").unlink()
            return world.predict

        yield Case(f"yaml: a config is {what}", ("data",), as_config)
        yield Case(f"yaml: a base is {what}", ("data",), as_base)
        yield Case(f"yaml: config.yaml of a run is {what}", ("run", "data"), of_run)
    for what, data in {"latin-1": "name: ü".encode("latin-1"), "utf-16": "seed: 1".encode("utf-16")}.items():

        def encoded(world: World, data: bytes = data) -> Words:
            (world.folder / "x.yaml").write_bytes(data)
            return ["train", world.folder / "x.yaml"]

        yield Case(f"yaml: a config is {what}", (), encoded)
    for override in OVERRIDES:
        yield Case(
            f"yaml: an override is {override[:20]}", ("base", "data"), lambda world, o=override: [*world.train, o]
        )


def tensors(names: dict[str, Any], data: bytes = b"") -> bytes:
    header = json.dumps(names).encode()
    return struct.pack("<Q", len(header)) + header + data


def weight_cases() -> Iterator[Case]:
    def changed(change: Callable[[Path, bytes], None]) -> Callable[[World], Words]:
        def make(world: World) -> Words:
            file = world.base / "model.safetensors"
            change(file, file.read_bytes())
            return world.train

        return make

    def renamed(old: str, new: str) -> Callable[[Path, bytes], None]:
        return lambda file, whole: file.write_bytes(with_header(whole, lambda text: text.replace(old, new)))

    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    contents: dict[str, Callable[[Path, bytes], None]] = {
        "empty": lambda file, _: file.write_bytes(b""),
        "seven bytes": lambda file, _: file.write_bytes(b"1234567"),
        "random": lambda file, whole: file.write_bytes(bytes(reversed(whole))),
        "a header of no length": lambda file, _: file.write_bytes(struct.pack("<Q", 0)),
        "a header of 2**63 bytes": lambda file, whole: file.write_bytes(struct.pack("<Q", 2**63) + whole[8:]),
        "a header of 99 MB": lambda file, whole: file.write_bytes(struct.pack("<Q", 99_000_000) + whole[8:]),
        "a header that is cut": lambda file, whole: file.write_bytes(whole[:200]),
        "data that are cut": lambda file, whole: file.write_bytes(whole[:-1]),
        "data that are cut in half": lambda file, whole: file.write_bytes(whole[: len(whole) // 2]),
        "data that are too long": lambda file, whole: file.write_bytes(whole + b"1"),
        "a header that is no JSON": renamed("{", "["),
        "a header that is deep": lambda file, _: file.write_bytes(struct.pack("<Q", DEEP) + b"[" * DEEP),
        "a header that is a list": lambda file, _: file.write_bytes(struct.pack("<Q", 2) + b"[]"),
        "no tensors": lambda file, _: file.write_bytes(tensors({})),
        "other tensors": lambda file, _: file.write_bytes(tensors({"x": one}, b"12345678")),
        "tensors that overlap": lambda file, _: file.write_bytes(tensors({"x": one, "y": one}, b"12345678")),
        "a tensor of no shape": lambda file, _: file.write_bytes(tensors({"x": {**one, "shape": None}}, b"12345678")),
        "a tensor of negative size": lambda file, _: file.write_bytes(tensors({"x": {**one, "shape": [-2]}}, b"1" * 8)),
        "a tensor of huge size": lambda file, _: file.write_bytes(tensors({"x": {**one, "shape": [2**62] * 2}}, b"")),
        "integers": renamed('"F32"', '"I32"'),
        "a type that is none": renamed('"F32"', '"Q32"'),
        "renamed tensors": renamed("embeddings", "embeddingz"),
        "a prefix of torch.compile": renamed('"encoder.layer', '"_orig_mod.encoder.layer'),
        "a shape that is turned": renamed("[128,64]", "[64,128]"),
        "a missing tensor": renamed("attention.self.query.bias", "attention.self.query.bios"),
        "a folder": lambda file, _: as_folder(file),
        "a loop of links": lambda file, _: loop(file),
        "absent": lambda file, _: file.unlink(),
        "a pickle": lambda file, _: (file.unlink(), (file.parent / "pytorch_model.bin").write_bytes(b"x"))[0],
        "a device": lambda file, _: (file.unlink(), file.symlink_to("/dev/zero"))[0],
    }  # fmt: skip
    for what, change in contents.items():
        yield Case(f"weights: model.safetensors is {what}", ("base", "data"), changed(change))
    for what, names in {
        "a file above": {"x": "../model.safetensors"},
        "an absolute file": {"x": "/etc/passwd"},
        "a shard that is absent": {"x": "model-00001-of-00002.safetensors"},
        "a NUL": {"x": "a\0b"},
        "no file": {},
        "a number": {"x": 3},
        "a long name": {"x": "a" * 5000},
        "the folder": {"x": "."},
    }.items():

        def indexed(world: World, names: dict[str, Any] = names) -> Words:
            index = world.base / "model.safetensors.index.json"
            index.write_text(json.dumps({"metadata": {}, "weight_map": names}), encoding="utf-8")
            return world.train

        yield Case(f"weights: an index names {what}", ("base", "data"), indexed)
    for what, change in contents.items():
        if what in ("a prefix of torch.compile", "a shape that is turned", "renamed tensors", "a missing tensor"):
            continue

        def adapter(world: World, change: Callable[[Path, bytes], None] = change) -> Words:
            file = world.folder / "adapter/adapter_model.safetensors"
            change(file, file.read_bytes())
            return words_of("warm", world)

        yield Case(f"weights: adapter_model.safetensors is {what}", ("adapter", "base", "data"), adapter)


def with_header(whole: bytes, change: Callable[[str], str]) -> bytes:
    """A safetensors file with another header."""
    (length,) = struct.unpack("<Q", whole[:8])
    header = change(whole[8 : 8 + length].decode()).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length :]
