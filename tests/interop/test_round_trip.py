"""One run, trained for real: exported, used as its card shows, and imported, all from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import SMALL, command

from jaxvalues.data.loading import load_split
from jaxvalues.data.tsv import ARGUMENT_HEADER, write_table
from jaxvalues.evaluation.predictions import read_predictions

# Texts that are easily read in another way than the run reads them.
ODD = (
    ("mine1", "We should  ban {fast} food", "against", "Füße </s> [MASK] <mask>   are 1,5 m long."),
    ("mine2", "Short", "in favor of", "so"),
    ("mine3", "We should", "in favor of", " ".join(f"word{i}" for i in range(80))),  # loses its end
    ("mine4", " ".join(f"word{i}" for i in range(80)), "against", "all of it is lost"),
)

QUICK = ("training.epochs=1", "training.evaluate_every=epoch", "training.checkpoint_every=epoch")

pytestmark = pytest.mark.usefixtures("quick_compiles")


def succeed(*words: object) -> str:
    code, out, err = command(*words)
    assert (code, err) == (0, ""), err
    return out


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, trained, and `hf`, its export; and `mine.tsv`, arguments to predict."""
    folder = tmp_path_factory.mktemp("round-trip")
    pooled = SMALL.replace("{over: mean, layers: [0, -1]}", "{over: cls, layers: [-1]}")
    assert pooled != SMALL
    (folder / "small.yaml").write_text(f"{pooled}\nruntime: {{compilation_cache: {folder / 'xla'}}}\n")
    some = load_split("test", source="sample").arguments[:9]
    rows = [*ODD, *((one.id, one.conclusion, one.stance, one.premise) for one in some)]
    write_table(folder / "mine.tsv", ARGUMENT_HEADER, rows)
    succeed("train", folder / "small.yaml", f"output={folder / 'run'}", *QUICK)
    succeed("predict", folder / "run", "--input", folder / "mine.tsv")
    succeed("export", folder / "run", "--to", "hf", folder / "hf")
    return folder


@pytest.mark.slow
def test_an_import_predicts_the_same_bytes(lab: Path) -> None:
    out = succeed("import", lab / "hf", "--out", lab / "back")
    assert "official F1" in out
    predicted = succeed("predict", lab / "back", "--split", "test", f"runtime.compilation_cache={lab / 'xla'}")
    assert "official F1" in predicted
    names = ("thresholds.json", "template.txt", "scores.json", "predictions-test.tsv", "probabilities-test.tsv")
    for name in (*names, "logits-test.tsv"):
        assert (lab / "back" / name).read_bytes() == (lab / "run" / name).read_bytes()
    before, after = ((lab / folder / "config.yaml").read_text() for folder in ("run", "back"))
    changed = set(before.splitlines()) ^ set(after.splitlines())
    assert {line.split(":")[0].strip() for line in changed} == {"output", "tensorboard", "compilation_cache"}


@pytest.mark.slow
def test_the_card_shows_how_to_get_the_same_probabilities(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (snippet,) = re.findall(r"```python\n(.*?)```", (lab / "hf/README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(lab / "hf")
    names: dict[str, Any] = {}
    capsys.readouterr()
    exec(snippet, names)
    printed = capsys.readouterr().out.splitlines()
    settings, shown = names["settings"], names["probabilities"]
    decided = [i for i in range(20) if shown[i] >= settings["threshold_probabilities"][i]]
    assert printed == [f"{shown[i]:.2f}  {names['model'].config.id2label[i]}" for i in decided]

    expected = read_predictions(lab / "run/probabilities-mine.tsv")
    rows = [line.split("\t")[1:] for line in (lab / "mine.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    assert max(len(names["encode"](*row)) for row in rows) == settings["max_length"] == 48
    np.testing.assert_allclose(names["predict"](rows).numpy(), expected.probabilities, atol=1e-5)
    assert expected.probabilities.std(axis=0).max() > 1e-3  # arguments are told apart
