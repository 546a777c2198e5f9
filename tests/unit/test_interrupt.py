import subprocess
import sys

import pytest

# The signal strikes where Python drops exceptions, and nothing else ends the wait.
PROGRAM = """
import os, signal, subprocess, sys
from devstack.interrupt import run

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def at_a_fork():
    os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))
    subprocess.run(['true'], preexec_fn=int)

def at_a_collection():
    dying = Dying()
    del dying

def main(arguments):
    globals()[arguments[0]]()
    signal.pause()

sys.exit(run(main, sys.argv[1:]))
"""


@pytest.mark.parametrize('where', ['at_a_fork', 'at_a_collection'])
def test_a_signal_is_not_dropped(where: str):
    answer = subprocess.run(
        [sys.executable, '-c', PROGRAM, where], capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.returncode, answer.stderr) == (143, '')
