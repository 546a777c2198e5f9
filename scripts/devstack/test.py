"""`scripts/test [unit | changed | --fuzz [number] | --netbox [app …] | pytest arguments]`: pytest with a NetBox.

Tests find the servers through NETBOX_ROOT and WEBHOOKS_STACK. Whole folders run in parts, some at a time (`parts`).
A run of everything measures the lines run in pytest's process.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack import netbox_tests
from devstack.changed import find_changed_tests
from devstack.folders import CHECKOUT, run_folder
from devstack.interrupt import wait_in_foreground
from devstack.parts import parts_of, run_parts, summarize
from devstack.shell import shell_environment
from devstack.stack import netbox_in, running_stack

UNIT_TESTS = 'tests/unit'
CHANGED = 'changed'
FUZZ = '--fuzz'
FUZZ_TESTS = 'tests/hostile/test_requests.py'
# Ten thousand requests take minutes.
WITHOUT_LIMIT = ('-o', 'faulthandler_timeout=0')
NETBOX = '--netbox'
WITHOUT_BROWSER = '--ignore=tests/browser'
LONG = '--long'
# The floor of lines is for all parts together.
MEASURING = ('--cov', '--cov-report=', '--cov-fail-under=0')


def main(arguments: list[str]) -> int:
    if arguments[:1] == ['unit']:
        arguments = [UNIT_TESTS, *arguments[1:]]
    if arguments[:1] == [CHANGED]:
        arguments = [*find_changed_tests(), *arguments[1:]]
    if arguments[:1] == [FUZZ]:
        arguments = [FUZZ_TESTS, *WITHOUT_LIMIT, *arguments]
    if arguments[:1] == [NETBOX]:
        return netbox_tests.main(arguments[1:])
    if _only_unit_tests(arguments):
        return _pytest(arguments, _without_netbox())
    parts = _parts(arguments)
    if len(parts) > 1:
        options = [LONG] if LONG in arguments else []
        return _test(parts, options, measuring=not set(arguments) - {WITHOUT_BROWSER, LONG})
    with running_stack() as stack, netbox_in(stack, 'netbox_test') as netbox:
        return _pytest(arguments, shell_environment(stack, netbox))


def _parts(arguments: list[str]) -> dict[str, list[str]]:
    """Return no parts if the arguments contain more than folders."""
    folders = [argument for argument in arguments if argument not in (WITHOUT_BROWSER, LONG)]
    if not all((CHECKOUT / folder).is_dir() for folder in folders):
        return {}
    left_out = 'tests/browser' if WITHOUT_BROWSER in arguments else ''
    return {name: paths for name, paths in parts_of(folders or ['tests']).items() if name != left_out}


def _test(parts: dict[str, list[str]], options: Sequence[str], measuring: bool) -> int:
    with running_stack():
        """The parts find a prepared database. Here, the progress of preparing it is seen."""
    with run_folder() as folder:
        ended = run_parts(parts, folder, [*(MEASURING if measuring else ()), *options])
        floor = _report_lines(folder) if measuring else 0
    return summarize(ended) or floor


def _report_lines(folder: Path) -> int:
    """Return non-zero below pyproject.toml's floor. `coverage html` needs the figures."""
    coverage = [sys.executable, '-m', 'coverage']
    print(flush=True)
    subprocess.run([*coverage, 'combine', '--quiet', *folder.glob('*.coverage')], cwd=CHECKOUT, check=False)
    return subprocess.run([*coverage, 'report'], cwd=CHECKOUT, check=False).returncode


def _only_unit_tests(arguments: list[str]) -> bool:
    paths = [argument for argument in arguments if argument.startswith('tests')]
    return bool(paths) and all(path.startswith(UNIT_TESTS) for path in paths)


def _without_netbox() -> dict[str, str]:
    absent = ('DJANGO_SETTINGS_MODULE', 'NETBOX_ROOT', 'WEBHOOKS_STACK')
    return {name: value for name, value in os.environ.items() if name not in absent}


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    child = subprocess.Popen([sys.executable, '-m', 'pytest', *arguments], env=environment, cwd=CHECKOUT)
    return wait_in_foreground(child)
