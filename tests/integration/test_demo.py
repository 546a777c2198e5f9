"""`scripts/demo --once`: the first thing that anybody runs."""

import subprocess

from devstack.folders import CHECKOUT
from devstack.ports import free_port


def test_it_shows_what_arrived_and_ends_well():
    command = [str(CHECKOUT / 'scripts' / 'demo'), '--once', '--port', str(free_port())]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for word in ('created', 'updated', 'deleted', 'webhook-id', 'webhook-signature', 'Bern', 'redeliver/'):
        assert word in answer.stdout
