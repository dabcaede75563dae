"""Runs of several processes: every tuning method, signals to one of them, kills, and restarts with another number."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import COMMAND, INTERRUPTED, NOWHERE, Ended, interrupted, start, together
from runs import SMALL, finish, metrics

# argv: a config, then the overrides of one run after another, separated by "--".
SEVERAL = """
import sys
import jaxvalues
config, *words = sys.argv[1:]
while words:
    end = words.index("--")
    run, words = words[:end], words[end + 1 :]
    jaxvalues.train(jaxvalues.load_config(config, run))
    print("done", run[0], flush=True)
"""

# The command, on process 1 with other packages.
OTHER_PACKAGES = f"""
import os
from jaxvalues.run import provenance
if os.environ["JAX_PROCESS_ID"] == "1":
    provenance._version = lambda package: "0.0.1"
{COMMAND}
"""

QUESTIONS = ("formulation.kind=masked_choice", "formulation.pooling={}", "data.max_length=60", "data.buckets=[60]")
QUESTIONS += ("data.fraction=0.1", "training.batch_size=4")
METHODS = {
    "full": (),
    "last_layers": ("tuning.layers=1",),
    "head": (),
    "bitfit": (),
    "lora": (),
    "ia3": (),
    "prompt": ("tuning.length=4",),
    "p_tuning": ("tuning.length=4", "tuning.reparameterization_size=64"),
    "prefix": ("tuning.length=4",),
    "none": (),
}
VARIANTS = {
    "prompt-vocabulary": ("tuning.method=prompt", "tuning.length=4", "tuning.init=vocabulary"),
    "prompt-labels": ("tuning.method=prompt", "tuning.length=4", "tuning.init=labels"),
    "p_tuning-lstm": ("tuning.method=p_tuning", "tuning.length=4", "tuning.reparameterization=lstm"),
    "prefix-mlp": ("tuning.method=prefix", "tuning.length=4", "tuning.reparameterization=mlp"),
    "soft-verbalizer": ("tuning.method=prompt", "tuning.length=4", "formulation.verbalizer.soft=true", *QUESTIONS),
    "warm-start": ("tuning.method=lora", "tuning.init_from={folder}/lora"),
    "warm-prompt": ("tuning.method=prompt", "tuning.length=4", "tuning.init_from={folder}/p_tuning"),
}
RUNS = {name: (f"tuning.method={name}", *more) for name, more in METHODS.items()} | VARIANTS
ONCE = ("training.epochs=1", "data.fraction=0.5", "runtime.heartbeat_timeout=20")


def train_all(folder: Path, config: Path, names: Sequence[str], processes: int, devices: int) -> list[Ended]:
    """Train the runs `names`, each in its folder below `folder`, in one set of processes."""
    words: list[str] = [str(config)]
    for name in names:
        more = [override.replace("{folder}", str(folder)) for override in RUNS[name]]
        distributed = "runtime.distributed=true" if processes > 1 else "runtime.distributed=false"
        words += [f"output={folder / name}", distributed, f"runtime.compilation_cache={config.parent / 'xla'}"]
        words += [*ONCE, *more, "--"]
    ended = together(SEVERAL, [words] * processes, seconds=240 * len(names), devices=devices)
    for code, out, err in ended:
        assert code == 0, err[-3000:]
        assert out.count("done output=") == len(names)
    return ended


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tmp_path_factory.mktemp("several") / "small.yaml"
    config.write_text(SMALL)
    return config


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("case", ["2-1-some", "2-1-all", "2-2-all"])
def test_every_method_trains_on_two_processes_as_on_one(case: str, small: Path) -> None:
    processes, devices, which = case.split("-")
    names = list(RUNS) if which == "all" else ["lora", "prompt-vocabulary"]
    alone, both = (small.parent / case / part for part in ("alone", "both"))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(train_all, alone, small, names, 1, 1)
        train_all(both, small, names, int(processes), int(devices))
        one.result()
    for name in names:
        two, one = metrics(both / name), metrics(alone / name)
        assert [(line["step"], line["kind"]) for line in two] == [(line["step"], line["kind"]) for line in one], name
        losses, expected = ([line["loss"] for line in lines] for lines in (two, one))
        assert losses == pytest.approx(expected, abs=2e-4), name
        assert not (both / name / "lock.json").exists()


def run_words(config: Path, output: str, *more: str) -> tuple[str, ...]:
    """A run of 32 steps, logged every third step, with evaluations of several batches."""
    folder = config.parent
    slow = ("training.epochs=4", "training.log_every=3", "training.eval_batch_size=2", "training.keep=last")
    where = (f"output={folder / output}", f"runtime.compilation_cache={folder / 'xla'}")
    joined = ("runtime.distributed=true", "runtime.heartbeat_timeout=10")
    return ("train", str(config), *where, *slow, *joined, *more)


@pytest.fixture(scope="module")
def straight(small: Path) -> Path:
    ((code, _, err),) = together(COMMAND, [run_words(small, "straight", "runtime.distributed=false")])
    assert code == 0, err
    return small.parent / "straight"


def assert_same_run(folder: Path, straight: Path) -> None:
    two, one = metrics(folder), metrics(straight)
    assert [(line["step"], line["kind"]) for line in two] == [(line["step"], line["kind"]) for line in one]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-4)


def stopped_at(ended: list[Ended]) -> int:
    """The step at which all processes stopped, as each of them says."""
    steps = set()
    for code, _, err in ended:
        assert code == 1, err[-3000:]
        assert "Traceback" not in err
        steps |= set(re.findall(r"jaxvalues: stopped at step (\d+) of 32, state saved; run the same command", err))
    assert len(steps) == 1
    return int(steps.pop())


@pytest.mark.exhaustive
def test_a_signal_to_one_process_stops_all(small: Path, straight: Path) -> None:
    words, slowly = run_words(small, "signals"), {"STEP_SECONDS": "0.25"}
    assert stopped_at(interrupted(words, ("training", 2, "SIGTERM"), **slowly)) in range(3, 16)
    assert stopped_at(interrupted(words, ("evaluation", 16, "SIGINT"), number=0, **slowly)) == 16
    assert [line["step"] for line in metrics(small.parent / "signals") if line["kind"] == "held_out"][-1] < 16
    assert stopped_at(interrupted(words, ("save", 20, "SIGHUP"), **slowly)) in range(20, 32)
    for code, _, err in interrupted(words, None):
        assert code == 0, err
    assert_same_run(small.parent / "signals", straight)


@pytest.mark.exhaustive
def test_without_jax_s_service_processes_look_every_few_steps(small: Path) -> None:
    slowly = {"STEP_SECONDS": "0.05", "JAX_ENABLE_PREEMPTION_SERVICE": "false"}
    ended = interrupted(run_words(small, "service"), ("training", 2, "SIGTERM"), **slowly)
    assert stopped_at(ended) in range(3, 11)


@pytest.mark.exhaustive
def test_a_killed_process_ends_all_and_any_number_resumes(small: Path, straight: Path) -> None:
    words, alone = run_words(small, "killed"), run_words(small, "killed", "runtime.distributed=false")
    for number in (1, 0):  # of which one holds the lock
        started = time.monotonic()
        strike = ("training", 6 if number else 10, "SIGKILL")
        each = [(*(strike if i == number else NOWHERE), *words) for i in range(2)]
        processes = start(INTERRUPTED, each, STEP_SECONDS="0.1")
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(finish, processes))
        assert ended[number][0] == -9
        assert ended[1 - number][0] != 0
        assert time.monotonic() - started < 90
    ((code, out, err),) = interrupted(alone, ("training", 14, "SIGTERM"), number=0, count=1)
    assert code == 1, err
    assert re.search(r"resuming at step [48]\n", out)  # a kill may come before the last checkpoint is whole
    (code, out, err), (other, _, other_err) = interrupted(words, None)
    assert code == other == 0, err + other_err
    assert "resuming at step 14" in out
    assert_same_run(small.parent / "killed", straight)


@pytest.mark.exhaustive
def test_a_second_interrupt_of_one_process_ends_all(small: Path) -> None:
    started = time.monotonic()
    other, struck = interrupted(run_words(small, "twice"), ("twice", 4, "SIGINT"), STEP_SECONDS="0.1")
    assert struck[0] == 1
    assert struck[2].endswith("jaxvalues: interrupted\n")
    assert other[0] != 0
    assert time.monotonic() - started < 90


@pytest.mark.exhaustive
def test_a_process_that_comes_late_with_another_config_is_told_so(small: Path) -> None:
    words = run_words(small, "late")
    differs = run_words(small, "late", "optimizer.learning_rate=0.25")
    for code, _, err in together(COMMAND, [words, differs], late=20):
        assert code == 2
        assert "jaxvalues: the processes of this run differ (optimizer.learning_rate of process 1): give all" in err
        assert re.search(r"\n +1 +optimizer\.learning_rate +0\.25 +0\.005\n", "\n" + err)
    for code, _, err in together(OTHER_PACKAGES, [words, words]):
        assert code == 2
        assert re.search(r"\n +1 +version\.jax +0\.0\.1 ", "\n" + err)
    assert not (small.parent / "late").exists()


@pytest.mark.exhaustive
def test_a_run_folder_that_is_not_shared_is_refused(small: Path, tmp_path: Path) -> None:
    program = "from jaxvalues.training import start_checks\nstart_checks.SEEN_S = 2\n" + COMMAND
    places = [tmp_path / "host0", tmp_path / "host1"]
    for place in places:
        place.mkdir()
    words = [word for word in run_words(small, "x") if not word.startswith("output=")] + ["output=runs/here"]
    for code, _, err in together(program, [words, words], cwd=places):
        assert code == 1
        assert "output: runs/here is not the same folder for process 1 as for process 0: put it on a file system" in err
    assert not list(places[0].iterdir()) + list(places[1].iterdir())


@pytest.mark.exhaustive
def test_two_processes_in_a_folder_in_use(small: Path) -> None:
    from jaxvalues.run.lock import RunLock

    lock = RunLock(small.parent / "used")
    lock.take()
    for code, _, err in together(COMMAND, [run_words(small, "used")] * 2):
        assert code == 1
        assert "is in use by process" in err
    lock.release()
