import os
import subprocess
import sys
from pathlib import Path

# Prints as many ports as it is asked for, and holds them until its input ends. Nobody else uses the range.
PROGRAM = """
import sys
from devstack import ports

ports._RANGE = range(19_000, 19_004)
print(*(ports.free_port() for _ in range(int(sys.argv[1]))), flush=True)
sys.stdin.read()
"""
ALL = set(range(19_000, 19_004))


class Run:
    """`folder` holds what the runs share."""

    def __init__(self, folder: Path, count: int) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, '-c', PROGRAM, str(count)],
            env=os.environ | {'TMPDIR': str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ports(self) -> set[int]:
        return set(map(int, self.popen.stdout.readline().split()))

    def end(self) -> None:
        self.popen.communicate()


def test_a_port_is_handed_out_once_though_nothing_listens_there_yet(tmp_path: Path):
    run = Run(tmp_path, 4)
    assert run.ports() == ALL
    run.end()


def test_runs_beside_each_other_get_different_ports_until_they_end(tmp_path: Path):
    for _ in range(2):  # what the first ones held is free again
        runs = [Run(tmp_path, 1) for _ in range(4)]
        assert set().union(*(run.ports() for run in runs)) == ALL
        for run in runs:
            run.end()
