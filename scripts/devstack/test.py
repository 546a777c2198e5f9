"""`scripts/test [unit | pytest arguments]`: pytest with a NetBox, whose servers it starts first and stops afterwards.

The tests find the servers through NETBOX_ROOT and WEBHOOKS_STACK. pytest's closing line is the last of the output.
A run of everything measures the branches taken in pytest's own process.
"""

import os
import subprocess
import sys

from devstack.folders import CHECKOUT
from devstack.interrupt import wait_in_foreground
from devstack.shell import shell_environment
from devstack.stack import netbox_in, running_stack

UNIT_TESTS = 'tests/unit'
# What may be said to a run of everything: a part of the tests takes a part of the branches.
WHOLE = {'--ignore=tests/browser'}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ['unit']:
        arguments = [UNIT_TESTS, *arguments[1:]]
    if _only_unit_tests(arguments):
        return _pytest(arguments, _without_netbox())
    if not set(arguments) - WHOLE:
        arguments = ['--cov', *arguments]
    with running_stack() as stack, netbox_in(stack, 'netbox_test') as netbox:
        return _pytest(arguments, shell_environment(stack, netbox))


def _only_unit_tests(arguments: list[str]) -> bool:
    paths = [argument for argument in arguments if argument.startswith('tests')]
    return bool(paths) and all(path.startswith(UNIT_TESTS) for path in paths)


def _without_netbox() -> dict[str, str]:
    absent = ('DJANGO_SETTINGS_MODULE', 'NETBOX_ROOT', 'WEBHOOKS_STACK')
    return {name: value for name, value in os.environ.items() if name not in absent}


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    child = subprocess.Popen([sys.executable, '-m', 'pytest', *arguments], env=environment, cwd=CHECKOUT)
    return wait_in_foreground(child)
