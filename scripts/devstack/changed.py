"""`scripts/test changed`: the tests that CONTRIBUTING.md names for the files of the working tree."""

import subprocess
from collections.abc import Iterable

from devstack.console import say
from devstack.failure import StartFailed
from devstack.folders import CHECKOUT

HEADING = '```changed\n'


def find_changed_tests() -> list[str]:
    """Return the test files for all that differs from the last commit. Raises StartFailed if there are none."""
    files = _git('diff', '--name-only', '--diff-filter=d', 'HEAD') + _git('ls-files', '--others', '--exclude-standard')
    rows = table((CHECKOUT / 'CONTRIBUTING.md').read_text())
    found = belonging_to(files, rows)
    if not found:
        raise StartFailed('No file differs from the last commit, or none has tests of its own: run scripts/test')
    if without := [file for file in files if not belonging_to([file], rows)]:
        say(f'No line in CONTRIBUTING.md for {" ".join(without)}')
    say(f'Running {" ".join(found)}')
    return found


def table(text: str) -> dict[str, list[str]]:
    """Read lines such as "webhooks/outbox: outbox/test_recording outbox/test_merging" as {path: test files}."""
    block = text.partition(HEADING)[2].partition('```')[0]
    rows = (line.partition(':') for line in block.splitlines() if ':' in line)
    return {path.strip(): [f'tests/{name}.py' for name in names.split()] for path, _colon, names in rows}


def belonging_to(files: Iterable[str], rows: dict[str, list[str]]) -> list[str]:
    """Return each changed test, and the tests of the longest path that each other file begins with."""
    found: dict[str, None] = {}
    for file in files:
        if file.startswith('tests/') and file.rpartition('/')[2].startswith('test_'):
            found[file] = None
        fitting = [path for path in rows if file == path or file.startswith(f'{path}/')]
        found |= dict.fromkeys(rows[max(fitting, key=len)] if fitting else ())
    return list(found)


def _git(*arguments: str) -> list[str]:
    answer = subprocess.run(['git', *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()
