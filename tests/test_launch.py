"""The launch scripts, with stand-ins for what they start."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"


def job_of_a_study(folder: Path, run: str) -> subprocess.Popen[str]:
    """Start the third of eight jobs, whose `jaxvalues` does what the lines `run` of a shell say."""
    stand_in = folder / "jaxvalues"
    stand_in.write_text(f"#!/usr/bin/env bash\n{run}\n")
    stand_in.chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_ID": "3"}
    environment = {**os.environ, **slurm, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(LAUNCH / "slurm_study.sh"), "study.yaml", "seed=1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_job_of_a_study_waits_for_the_run_to_save(tmp_path: Path) -> None:
    """SLURM sends SIGTERM to the script alone, and kills what is left once the script has ended."""
    saves = f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 75' TERM\necho \"$@\"\nwhile true; do sleep 0.05; done"
    with job_of_a_study(tmp_path, saves) as job:
        assert job.stdout.readline() == "compare study.yaml seed=1 --part 3/8\n"
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=10) == 75
        assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_of_a_study_ends_as_its_command(tmp_path: Path, code: int) -> None:
    with job_of_a_study(tmp_path, f"exit {code}") as job:
        assert job.wait(timeout=10) == code
