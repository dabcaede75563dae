"""Freed memory is kept, so that the next step finds its pages already mapped."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from jaxvalues.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(2**25)  # 256 MiB, mapped, written and freed
before = faults()
np.ones(2**25)
print(faults() - before)
"""


SHRINKS = """
import numpy as np
from jaxvalues.training.memory import release_freed_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
np.ones(2**25)  # 256 MiB, mapped, written and freed
before = resident()
assert release_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_what_is_kept_can_be_given_back() -> None:
    given = subprocess.run([sys.executable, "-c", SHRINKS], capture_output=True, text=True, check=True).stdout
    assert int(given) > 200 * 2**20


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_a_second_large_block_costs_no_page_faults() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "give back")
    }
    assert faults["keep"] < 100 < faults["give back"]
