"""More malformed inputs (see `hostile`): paths, folders of data, and checkpoints of runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile import Case, Words, World, as_folder, loop, remove

LONG = "a" * 5000
PATHS: dict[str, Callable[[Path], str]] = {  # {what: a path, which may be made below a folder}
    "long": lambda folder: LONG,
    "a long name": lambda folder: str(folder / ("b" * 300)),
    "deep": lambda folder: "/".join(["c"] * 3000),
    "below a file": lambda folder: str(folder / "small.yaml/x"),
    "below a device": lambda folder: "/dev/null/x",
    "in /proc": lambda folder: "/proc/nowhere/x",
    "of nobody": lambda folder: "~nobody-here/x",
    "a loop of links": lambda folder: _made(folder / "loop", loop),
    "below a loop": lambda folder: _made(folder / "loop", loop) + "/x",
    "half a character": lambda folder: str(folder / "a\udcff"),
}
QUOTED = {"a NUL": lambda folder: r"a\0b", "half a character in YAML": lambda folder: r"\ud800"}
READS: dict[str, Callable[[World, str], Words]] = {  # what reads a path
    "the config": lambda world, path: ["train", path],
    "the config of show": lambda world, path: ["show", path],
    "data --dir": lambda world, path: ["data", "--dir", path],
    "data.dir": lambda world, path: [*world.train, f'data.dir="{path}"'],
    "model.path": lambda world, path: [*world.train, f'model.path="{path}"'],
    "model.tokenizer": lambda world, path: [*world.train, f'model.tokenizer="{path}"'],
    "the template": lambda world, path: [*world.train, f'formulation.template="{path}"'],
    "the descriptions": lambda world, path: [
        *world.train, f'formulation={{template: joined_with_descriptions, descriptions: "{path}"}}'
    ],
    "init_from": lambda world, path: [*world.train, f'tuning={{method: lora, init_from: "{path}"}}'],
    "score --truth": lambda world, path: ["score", "--truth", path, "--run", world.data / "labels-test.tsv"],
    "score --run": lambda world, path: ["score", "--truth", world.data / "labels-test.tsv", "--run", path],
    "the run of predict": lambda world, path: ["predict", path, "--split", "test"],
    "predict --input": lambda world, path: ["predict", world.run, "--input", path, "--out", world.folder / "found"],
    "the run of export": lambda world, path: ["export", path, world.folder / "found", "--to", "hf"],
    "import": lambda world, path: ["import", path, "--out", world.folder / "found"],
    "a run of an ensemble": lambda world, path: ["ensemble", path, world.run, "--out", world.folder / "found"],
}  # fmt: skip
WRITES: dict[str, Callable[[World, str], Words]] = {  # what writes to a path
    "output": lambda world, path: [*world.train[:2], f'output="{path}"'],
    "the cache": lambda world, path: [*world.train, f'runtime.compilation_cache="{path}"'],
    "predict --out": lambda world, path: ["predict", world.run, "--split", "test", "--out", path],
    "export": lambda world, path: ["export", world.run, path, "--to", "hf"],
    "import --out": lambda world, path: ["import", world.folder / "export", "--out", path],
    "ensemble --out": lambda world, path: ["ensemble", world.run, world.folder / "other", "--out", path],
    "bench --json": lambda world, path: ["bench", world.folder / "small.yaml", "--peer", "none", "--json", path],
}
NEEDS = {"import --out": "export", "ensemble --out": "other"}


def _made(path: Path, make: Callable[[Path], None]) -> str:
    make(path)
    return str(path)


def path_cases() -> Iterator[Case]:
    for uses in (READS, WRITES):
        for use, words in uses.items():
            in_config = "=" in str(words(World(Path("/")), "x")[-1])
            kinds = PATHS | (QUOTED if in_config else {})
            if uses is WRITES:
                kinds = {**kinds, "a file": lambda folder: str(folder / "small.yaml")}
            else:
                kinds = {**kinds, "nowhere": lambda folder: str(folder / "nowhere")}
            needs = ("run", "base", "data", *([NEEDS[use]] if use in NEEDS else []))
            for what, path in kinds.items():
                if use == "bench --json" and what == "a file":
                    continue  # which is written anew

                def make(world: World, words: Callable[[World, str], Words] = words, path=path) -> Words:
                    return words(world, path(world.folder))

                yield Case(f"path: {use} is {what}", needs, make)
    for use in ("data --dir", "data.dir", "model.path", "model.tokenizer", "init_from", "the run of predict", "import"):
        yield Case(
            f"path: {use} is a file",
            ("run", "base", "data"),
            lambda world, u=use: READS[u](world, world.folder / "small.yaml"),
        )
    for use in ("the config", "the template", "the descriptions", "score --truth", "score --run", "predict --input"):
        yield Case(
            f"path: {use} is a folder", ("run", "base", "data"), lambda world, u=use: READS[u](world, world.data)
        )
    yield Case(
        "path: bench --json is a folder", ("base", "data"), lambda world: WRITES["bench --json"](world, world.data)
    )


def data_cases() -> Iterator[Case]:
    places: dict[str, Callable[[Path], None]] = {
        "a folder": as_folder,
        "a loop of links": loop,
        "a device": lambda path: (remove(path), path.symlink_to("/dev/zero"))[0],
        "empty": lambda path: path.write_bytes(b""),
        "binary": lambda path: path.write_bytes(bytes(range(256))),
    }
    for file in ("arguments-training.tsv", "labels-training.tsv", "arguments-test.tsv", "labels-test.tsv"):
        for what, change in places.items():

            def checked(world: World, file: str = file, change: Callable[[Path], None] = change) -> Words:
                change(world.data / file)
                return ["data", "--dir", world.data]

            def trained(world: World, file: str = file, change: Callable[[Path], None] = change) -> Words:
                change(world.data / file)
                return world.train

            yield Case(f"data: {file} is {what}, checked", ("data",), checked)
            yield Case(f"data: {file} is {what}, trained on", ("base", "data"), trained)


def checkpoint_cases() -> Iterator[Case]:
    """The checkpoint of a finished run, and that of one to resume, with their checksums and without."""
    for series, command in (("run/checkpoints/chosen", "predict"), ("half/checkpoints/resume", "resume")):
        root = series.split("/")[0]
        needs = (root, "base", "data")

        def broken(change: Callable[[Path], None], with_sums: bool, series: str = series, command: str = command):
            def make(world: World) -> Words:
                folder = world.folder / series
                if not with_sums:
                    folder.with_name(f"{folder.name}.json").unlink(missing_ok=True)
                    (world.folder / series.split("/", maxsplit=1)[0] / "manifest.json").unlink(missing_ok=True)
                change(folder)
                return getattr(world, command)

            return make

        changes: dict[str, Callable[[Path], None]] = {
            "cut everywhere": lambda folder: _each(folder, lambda data: data[: len(data) // 2]),
            "empty everywhere": lambda folder: _each(folder, lambda data: b""),
            "without data": lambda folder: [remove(path) for path in folder.rglob("d") if path.is_dir()],
            "without its state": lambda folder: [remove(path) for path in folder.glob("*/state")],
            "without its memory": lambda folder: [remove(path) for path in folder.glob("*/memory")],
            "without metadata": lambda folder: [remove(path) for path in folder.rglob("_METADATA")],
            "of other memory": lambda folder: [
                path.write_text('{"segments": 3}') for path in folder.glob("*/memory/*") if path.is_file()
            ],
            "garbage in its metadata": lambda folder: [path.write_bytes(b"{") for path in folder.rglob("_METADATA")],
        }  # fmt: skip
        for what, change in changes.items():
            yield Case(f"checkpoint: {series} is {what}, with sums", needs, broken(change, True))
            yield Case(f"checkpoint: {series} is {what}", needs, broken(change, False))
        for place in range(12):  # a byte of a file, here and there
            yield Case(f"checkpoint: {series} has byte {place} flipped", needs, broken(_flip(place), True))
        yield Case(f"checkpoint: {series} is a file", needs, broken(_as_file, False))
        yield Case(f"checkpoint: {root}/checkpoints is a file", needs, broken(lambda f: _as_file(f.parent), False))
    yield Case("checkpoint: run/checkpoints is absent", ("run", "data"), _absent)
    for name in ("template.txt", "config.yaml", "thresholds.json", "tokenizer/tokenizer.json", "scores.json"):

        def flipped(world: World, name: str = name) -> Words:
            file = world.run / name
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(bytes(data))
            return world.predict

        yield Case(f"checkpoint: {name} of a run has a byte flipped", ("run", "data"), flipped)


def resume_cases() -> Iterator[Case]:
    """A base that changed between stop and resume, which its weights do not show."""
    changes = {
        "config.json has another activation": ("config.json", lambda content: {**content, "hidden_act": "relu"}),
        "config.json has another norm": ("config.json", lambda content: {**content, "layer_norm_eps": 0.5}),
        "tokenizer.json lowercases": (
            "tokenizer.json",
            lambda content: {**content, "normalizer": {"type": "Lowercase"}},
        ),
        "tokenizer.json has other merges": (
            "tokenizer.json",
            lambda content: {**content, "model": {**content["model"], "merges": content["model"]["merges"][:-9]}},
        ),
        "tokenizer_config.json has another mask": (
            "tokenizer_config.json",
            lambda content: {**content, "mask_token": "<unk>"},
        ),
    }
    for what, (name, change) in changes.items():

        def make(world: World, name: str = name, change: Callable[[dict], dict] = change) -> Words:
            file = world.base / name
            content = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(change(content)), encoding="utf-8")
            return world.resume

        yield Case(f"resume: {what}", ("half", "base", "data"), make)


def _absent(world: World) -> Words:
    remove(world.run / "checkpoints")
    (world.run / "manifest.json").unlink()
    return world.predict


def _as_file(path: Path) -> None:
    remove(path)
    path.write_bytes(b"x")


def _each(folder: Path, change: Callable[[bytes], bytes]) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(change(path.read_bytes()))


def _flip(place: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        file = files[place % len(files)]
        data = bytearray(file.read_bytes())
        data[(place * 7919) % len(data)] ^= 1 << (place % 8)
        file.write_bytes(bytes(data))

    return change
