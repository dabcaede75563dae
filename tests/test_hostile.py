"""Malformed files, paths and values: each ends in one sentence and an exit code, and nothing is written or lost.

`hostile` and `hostile_places` make them by kind. A handful runs always, some of each kind in the slow set, and all of
them in the exhaustive set.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import traceback
from pathlib import Path

import pytest
from hostile import Case, World, json_cases, weight_cases, yaml_cases
from hostile_places import checkpoint_cases, data_cases, path_cases, resume_cases
from runs import command

from jaxvalues.data.loading import load_split, sample_folder
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.models.loading import init_model, save_model

CASES = [
    *json_cases(),
    *yaml_cases(),
    *weight_cases(),
    *path_cases(),
    *data_cases(),
    *checkpoint_cases(),
    *resume_cases(),
]
CHEAP = [case for case in CASES if set(case.needs) <= {"data"}]  # refused before JAX is imported
SECONDS = 20

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
ROBERTA = {"model_type": "roberta", "vocab_size": 500, "max_position_embeddings": 66, "type_vocab_size": 1, **SIZES}
SMALL = """
name: small
data: {{dir: {folder}/data, max_length: 40, buckets: [40], held_out: 0.3}}
model: {{path: {folder}/base, scan: false}}
formulation: {{pooling: {{over: cls}}}}
training: {{epochs: 1, batch_size: 32, eval_batch_size: 32, evaluate_every: epoch}}
logging: {{tensorboard: false}}
runtime: {{compilation_cache: null}}
"""


class Worlds:
    """Whole inputs, each made when a case first needs it, and copies of them to break."""

    def __init__(self, folder: Path) -> None:
        self.whole, self.copies = World(folder / "whole"), folder / "copies"
        self.whole.folder.mkdir()
        self._write_config(self.whole.folder)

    def copy(self, case: Case) -> World:
        """A copy of what a case needs; the copy before it is removed."""
        for need in case.needs:
            if not (self.whole.folder / need).exists():
                getattr(self, f"_{need}")(self.whole.folder / need)
        shutil.rmtree(self.copies, ignore_errors=True)
        world = World(self.copies / "world")
        for need in case.needs:
            shutil.copytree(self.whole.folder / need, world.folder / need)
        (world.folder / "cwd").mkdir(parents=True)
        self._write_config(world.folder)
        return world

    @staticmethod
    def _write_config(folder: Path) -> None:
        (folder / "small.yaml").write_text(SMALL.format(folder=folder), encoding="utf-8")

    def _need(self, *names: str) -> None:
        for name in names:
            if not (self.whole.folder / name).exists():
                getattr(self, f"_{name}")(self.whole.folder / name)

    def _data(self, folder: Path) -> None:
        with sample_folder() as sample:
            shutil.copytree(sample, folder)

    def _base(self, folder: Path) -> None:
        texts = [argument.premise for argument in load_split("training", source="sample").arguments]
        train_tokenizer(texts, 500, 64).save_pretrained(folder)
        save_model(folder, ROBERTA, init_model(ROBERTA)[1])

    def _done(self, *words: object) -> None:
        code, _, err = command(*words)
        assert code == 0, err

    def _run(self, folder: Path, *overrides: str) -> None:
        self._need("base", "data")
        self._done("train", self.whole.folder / "small.yaml", f"output={folder}", *overrides)

    def _other(self, folder: Path) -> None:
        self._run(folder, "seed=1")

    def _half(self, folder: Path) -> None:
        """The run as a kill leaves it after its last step."""
        self._need("run")
        shutil.copytree(self.whole.run, folder)
        for path in [
            *folder.glob("*.tsv"),
            *(folder / f"{name}.json" for name in ("scores", "thresholds", "manifest")),
        ]:
            path.unlink()

    def _both(self, folder: Path) -> None:
        self._need("run", "other")
        self._done("ensemble", self.whole.run, self.whole.folder / "other", "--out", folder)

    def _export(self, folder: Path) -> None:
        self._need("run")
        self._done("export", self.whole.run, folder, "--to", "hf")

    def _adapter(self, folder: Path) -> None:
        lora = self.whole.folder / "lora"
        self._run(lora, "tuning={method: lora, rank: 2}")
        self._done("export", lora, folder, "--to", "peft")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, quick_compiles: None) -> Worlds:
    return Worlds(tmp_path_factory.mktemp("hostile"))


def contents(folder: Path) -> dict[str, str]:
    """Every file, folder and link below a folder, and what it holds."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            else:
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
    return found


def problem_of(case: Case, worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is wrong with how a case is refused; None where all is right."""
    world = worlds.copy(case)
    words = case.make(world)
    monkeypatch.chdir(world.folder / "cwd")
    before, start = contents(world.folder), time.monotonic()
    try:
        code, _, err = command(*words)
    except BaseException:  # a traceback for the user
        return traceback.format_exc(limit=-4)
    seconds, after = time.monotonic() - start, contents(world.folder)
    said = err.removesuffix("\n")
    if code not in (1, 2):
        return f"exit code {code}: {said}"
    if case.name.startswith("data: ") and case.name.endswith(", checked"):  # a table of problems on the screen
        said = f"jaxvalues: {said}"
    if "\n" in said or not said.startswith("jaxvalues: ") or len(said) >= 300:
        return f"{len(said)} characters: {said[:400]}"
    if before != after:
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        return f"changed {changed[:5]}: {said}"
    return f"took {seconds:.0f} s: {said}" if seconds > SECONDS else None


def refuse(cases: list[Case], worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try all cases. Fails with those that are not refused as they should be."""
    wrong = {}
    for case in cases:
        if problem := problem_of(case, worlds, monkeypatch):
            wrong[case.name] = problem
            print(f"{case.name}: {problem}", flush=True)
    print(f"{len(cases)} malformed inputs tried, {len(cases) - len(wrong)} refused")
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())


def test_a_handful_is_refused(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(CHEAP[:: len(CHEAP) // 20], worlds, monkeypatch)


KINDS = sorted({case.kind for case in CASES})


@pytest.mark.main_cases("json")
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_some_of_each_kind_are_refused(kind: str, worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in CASES if case.kind == kind]
    refuse(cases[:: max(1, len(cases) // 15)], worlds, monkeypatch)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_all_are_refused(kind: str, worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse([case for case in CASES if case.kind == kind], worlds, monkeypatch)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 500
    assert len({case.name for case in CASES}) == len(CASES)
