"""`python -m devstack demo|dump|pictures|test|shell …`, as the scripts call it."""

import signal

# Do this first, so that Ctrl-C during the imports shows no traceback. `run` takes over.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys  # noqa: E402
from importlib import import_module  # noqa: E402

from devstack.interrupt import run  # noqa: E402

COMMANDS = ('demo', 'dump', 'pictures', 'test', 'shell')

if __name__ == '__main__':
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f'usage: python -m devstack {"|".join(COMMANDS)}')
    sys.exit(run(import_module(f'devstack.{sys.argv[1]}').main, sys.argv[2:]))
