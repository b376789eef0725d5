"""What is freed is kept for the next call."""

import subprocess
import sys

import pytest

ROUNDS = 50

SCRIPT = f"""
import resource, sys
from server.memory import settle

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "settled":
    settle()
[bytes(320_000) for _ in range(16)]
before = faults()
for _ in range({ROUNDS}):
    [b"x" * 320_000 for _ in range(16)]  # a batch of waveforms
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_the_waveforms_of_a_batch_lie_where_those_of_the_last_one_lay():
    def pages(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert pages("settled") < 100 * ROUNDS < pages("as it comes")
