"""The quickstarts, from the config file to the export that the run's last line names."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from runs import ROOT, command

FORMATS = {"quickstart": "hf", "quickstart-gpt2": "peft", "quickstart-t5": "peft"}
WEIGHTS = {"hf": "model.safetensors", "peft": "adapter_model.safetensors"}


@pytest.mark.slow
@pytest.mark.main_cases("quickstart")
@pytest.mark.parametrize("name", FORMATS)
def test_a_quickstart_trains_and_is_exported_as_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the paths in a config are relative to it
    run = tmp_path / "run"
    code, out, err = command(
        "train", ROOT / f"configs/{name}.yaml", f"output={run}", "training.epochs=1", "runtime.compilation_cache=null"
    )
    assert (code, err) == (0, "")
    assert "of random weights (" in out
    assert "on 230 arguments; " in " ".join(out.split())

    last = out.splitlines()[-1]
    assert last.startswith("Export: jaxvalues export ")
    code, out, err = command(*shlex.split(last)[2:])
    assert (code, err) == (0, "")
    assert last.endswith(f" --to {FORMATS[name]}")
    assert (tmp_path / f"run-{FORMATS[name]}" / WEIGHTS[FORMATS[name]]).stat().st_size > 0
