"""What several processes agree on, without a run: real processes, connected as those of a run."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest
from processes import together

# argv: the program for this process. Every process is connected before it.
CONNECTED = """
import sys
from pathlib import Path
from jaxvalues.errors import UserError
from jaxvalues.training import processes, start_checks
from jaxvalues.training.processes import *
from jaxvalues.training.start_checks import *
start_checks.SEEN_S = 1.0
join_processes(60, 10)
me = jax.process_index()

def fail():
    raise ConfigError(f"no {me}")

try:
    exec(sys.argv[1])
except UserError as error:
    print(f"{type(error).__name__}: {error}")
    part(str(error))
"""


def each(*programs: str) -> list[str]:
    """What processes print that run these programs, one each."""
    ended = together(CONNECTED, [[program] for program in programs])
    for code, _, err in ended:
        assert code == 0, err
    return ["\n".join(line for line in out.splitlines() if "[Gloo]" not in line) for _, out, _ in ended]


@pytest.mark.slow
def test_process_0_decides_and_all_hear_all() -> None:
    program = """
print(from_main("a", lambda: [me, None]), everyone("b", lambda: me * 2))
barrier("c")
print(from_main("a", lambda: me), is_main(), is_alone())
"""
    first, second = each(program, program)
    assert first == "[0, None] [0, 2]\n0 True False"
    assert second == "[0, None] [0, 2]\n0 False False"


@pytest.mark.slow
def test_an_error_of_one_is_an_error_of_all() -> None:
    assert each(*['from_main("a", fail)'] * 2) == ["ConfigError: no 0"] * 2
    assert each('everyone("a", lambda: me)', 'everyone("a", fail)') == [
        "ConfigError: process 1: no 1",
        "ConfigError: no 1",
    ]


@pytest.mark.slow
def test_process_0_reads_arrays_for_all() -> None:
    """A failure of it is a failure of all; the others read nothing."""
    program = """
read = lambda: np.arange(6, dtype=np.float32).reshape(2, 3) if me == 0 else 1 / 0
print(array_from_main("a", (2, 3), read).tolist())
array_from_main("a", (2, 3), fail)
"""
    assert each(program, program) == ["[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]\nConfigError: no 0"] * 2


@pytest.mark.slow
def test_who_fails_elsewhere_is_not_waited_for() -> None:
    waits, fails = each('from_main("a", lambda: me); everyone("b", lambda: me)', 'from_main("a", lambda: 0); fail()')
    assert waits == "UserError: process 1: no 1"
    assert fails == "ConfigError: no 1"


@pytest.mark.slow
def test_who_does_not_come_is_named() -> None:
    late = 'import time; time.sleep(4); print("here"); part("")'
    waits, _ = each('processes.PATIENCE_S = 1; barrier("the end")', late)
    assert waits == "UserError: the end: process 1 did not come within 1 s, see its log"


@pytest.mark.slow
def test_differences_are_a_table() -> None:
    program = """
facts = {"seed": 1, "data": "x" * 64, "versions.jax": "1.0", "same": 0}
if me: facts |= {"seed": 2, "data": "x" * 20 + "y" * 44}; del facts["versions.jax"]
check_same(lambda: facts)
"""
    program = f"import contextlib\nwith contextlib.redirect_stderr(sys.stdout):\n{indent(program, '    ')}"
    first, second = each(program, program)
    assert first == second
    *table, sentence = first.splitlines()
    assert sentence == (
        "ConfigError: the processes of this run differ (data of process 1, seed of process 1 and 1 more): give all of "
        "them the same config, code, data and packages"
    )
    assert [line.split() for line in table] == [
        ["process", "key", "there", "process", "0"],
        ["1", "data", "xxxxxxxxxxxxxxxxxxxxy...", "xxxxxxxxxxxxxxxxxxxxx..."],
        ["1", "seed", "2", "1"],
        ["1", "versions.jax", "absent", "1.0"],
    ]


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "lock.json").write_text('{"token": "abc"}')
    program = f'check_shared(Path("{tmp_path}") / str(me) / "lock.json", "abc"); print("seen")'
    for said in each(program, program):
        assert "is not the same folder for process 1 as for process 0: put it on a file system that all" in said
    program = f'check_shared(Path("{tmp_path}") / "0" / "lock.json", "abc"); print("seen")'
    assert each(program, program) == ["seen", "seen"]
