"""Folders of tests run in parts: each part is a `scripts/test` with its own servers.

A part is a folder of test files, a share of a large one, or several small ones. Its output is shown at its end.
"""

import math
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.console import say
from devstack.folders import CHECKOUT
from devstack.process import Child, Processes, wait_until

# Parts wait half of their time for PostgreSQL and the clock: with six, two cores hardly ever rest.
# Tests empty a Redis that the environment names: no two parts can share it.
AT_ONCE = 1 if os.environ.get('NETBOX_WEBHOOKS_TEST_REDIS_HOST') else 6
# Folders that take minutes start first, the one that waits most before all, divided into so many parts.
SHARES = {
    'tests/chaos': 3,
    'tests/integration/as_code': 1,
    'tests/integration/api': 1,
    'tests/integration/brokers': 1,
    'tests/integration/engine': 2,
    'tests/hostile': 1,
    'tests/integration/payload': 1,
    'tests/integration/installation': 2,
    'tests/browser': 1,
}
# The servers and the NetBox of a part take some ten seconds of processor time until the first page is shown. So these
# folders share one.
TOGETHER_IN = 'tests/integration'
TOGETHER = (
    ('api', 'services', 'ui'),
    ('as_code', 'django_admin', 'outbox', 'presentation', 'security', 'templating', 'validation'),
    ('payload', 'rendering'),
)

# No colours: the closing line is read.
COMMAND = (sys.executable, '-m', 'devstack', 'test', '--color=no')
COUNT = re.compile(r'(\d+) (passed|failed|error|skipped)')
CLOSING_LINE = re.compile(rf'=* ?((?:.*, )?{COUNT.pattern}.* in [\d.]+s.*?) ?=*')


@dataclass(frozen=True)
class Part:
    name: str
    code: int
    output: str

    @property
    def counts(self) -> Counter[str]:
        """How many tests had each outcome. A part that was broken off counts as one error."""
        found = {outcome: int(number) for number, outcome in COUNT.findall(self._closing_line)}
        return Counter(found or {'error': int(self.code != 0)})

    @property
    def summary(self) -> str:
        ended = [self._closing_line] if self._closing_line else []
        if self.code:
            ended.append(f'exit code {self.code}')
        return f'{self.name}: {", ".join(ended)}'

    @property
    def _closing_line(self) -> str:
        """A killed part has no closing line."""
        found = [match[1] for line in self.output.splitlines() if (match := CLOSING_LINE.fullmatch(line))]
        return found[-1] if found else ''


def parts_of(folders: Iterable[str]) -> dict[str, list[str]]:
    found = {str(part.relative_to(CHECKOUT)) for folder in folders for part in _with_tests(CHECKOUT / folder)}
    order = list(SHARES)
    ordered = sorted(found, key=lambda folder: (order.index(folder) if folder in order else len(order), folder))
    parts: dict[str, list[str]] = {}
    for folder in ordered:
        names = _together(folder, found)
        united = {f'{TOGETHER_IN}/{{{",".join(names)}}}': [f'{TOGETHER_IN}/{name}' for name in names]}
        parts |= united if len(names) > 1 else dict(_shares(folder))
    return parts


def _together(folder: str, found: Collection[str]) -> list[str]:
    """Return the names of the folders that share a part with this one."""
    group = next((group for group in TOGETHER if folder in {f'{TOGETHER_IN}/{name}' for name in group}), ())
    return [name for name in group if f'{TOGETHER_IN}/{name}' in found]


def _with_tests(folder: Path) -> list[Path]:
    if any(folder.glob('test_*.py')):
        return [folder]
    return [part for inner in folder.iterdir() if inner.is_dir() for part in _with_tests(inner)]


def _shares(folder: str) -> list[tuple[str, list[str]]]:
    """A long file takes long, so divide by size."""
    count = SHARES.get(folder, 1)
    if count == 1:
        return [(folder, [folder])]
    sizes = {file: file.stat().st_size for file in (CHECKOUT / folder).rglob('test_*.py')}
    shares: list[list[Path]] = [[] for _ in range(count)]
    for file in sorted(sizes, key=lambda file: (-sizes[file], file)):
        min(shares, key=lambda share: sum(sizes[other] for other in share)).append(file)
    return [
        (f'{folder} ({number} of {count})', sorted(str(file.relative_to(CHECKOUT)) for file in share))
        for number, share in enumerate(shares, 1)
    ]


def run_parts(
    parts: Mapping[str, Sequence[str]], folder: Path, options: Sequence[str] = (), command: Sequence[str] = COMMAND
) -> list[Part]:
    runner = _Runner(folder, [*command, *options])
    try:
        return runner.run(parts)
    finally:
        runner.processes.stop_all()


class _Runner:
    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.command = command
        self.processes = Processes(folder)

    def run(self, parts: Mapping[str, Sequence[str]]) -> list[Part]:
        waiting, ended = list(parts.items()), []
        running: dict[str, Child] = {}
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                name, paths = waiting.pop(0)
                running[name] = self._start(name, paths)
            wait_until(lambda: any(not child.running for child in running.values()), math.inf, interval=0.1)
            for name in [name for name, child in running.items() if not child.running]:
                ended.append(self._end(name, running.pop(name)))
        return ended

    def _start(self, name: str, paths: Sequence[str]) -> Child:
        say(f'{name} …')
        file = re.sub(r'\W+', '-', name).strip('-')
        environment = os.environ | {'COVERAGE_FILE': str(self.folder / f'{file}.coverage')}
        command = [*self.command, *paths]
        return self.processes.start(file, command, environment=environment, folder=CHECKOUT, client=True)

    def _end(self, name: str, child: Child) -> Part:
        self.processes.children.remove(child)
        output = child.log.read_text(errors='replace')
        print(f'\n{name}\n{output}', flush=True)
        return Part(name, child.popen.returncode, output)


def summarize(parts: Sequence[Part]) -> int:
    """Return a failed part's exit code, else 0."""
    total: Counter[str] = Counter()
    for part in parts:
        total += part.counts
        print(part.summary)
    failed = total['failed'] + total['error']
    print(f'Total: {total["passed"]} passed, {failed} failed, {total["skipped"]} skipped', flush=True)
    return next((part.code for part in parts if part.code), 0)
