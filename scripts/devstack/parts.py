"""Whole folders of tests, in parts: each part is a `scripts/test` of its own, with its own servers, two at a time.

A part is a folder that holds files of tests, with all below it. What it prints is shown when it has ended.
"""

import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.console import say
from devstack.folders import CHECKOUT
from devstack.process import Child, Processes, wait_until

# A Redis that the environment names is emptied by tests: no two parts can share it.
AT_ONCE = 1 if os.environ.get('NETBOX_WEBHOOKS_TEST_REDIS_HOST') else 2
# They take minutes. What is long starts first, so that nothing long is left when all else has ended.
LONG = (
    *('tests/integration/outbox', 'tests/integration/engine', 'tests/integration/installation'),
    *('tests/hostile', 'tests/integration/rendering'),
)
# They come last and one by one: what they kill and watch needs the whole machine.
ALONE = ('tests/chaos', 'tests/browser')

# No colours: the closing line is read.
COMMAND = (sys.executable, '-m', 'devstack', 'test', '--color=no')
COUNT = re.compile(r'(\d+) (passed|failed|error|skipped)')
CLOSING_LINE = re.compile(rf'=* ?((?:.*, )?{COUNT.pattern}.* in [\d.]+s.*?) ?=*')


@dataclass(frozen=True)
class Part:
    """One that has ended."""

    folder: str
    code: int
    output: str

    @property
    def counts(self) -> Counter[str]:
        return Counter({outcome: int(number) for number, outcome in COUNT.findall(self._closing_line)})

    @property
    def summary(self) -> str:
        ended = [self._closing_line] if self._closing_line else []
        if self.code:
            ended.append(f'exit code {self.code}')
        return f'{self.folder}: {", ".join(ended)}'

    @property
    def _closing_line(self) -> str:
        """pytest's. A part that was killed has none."""
        found = [match[1] for line in self.output.splitlines() if (match := CLOSING_LINE.fullmatch(line))]
        return found[-1] if found else ''


def parts_of(folders: Iterable[str]) -> list[str]:
    """In the order of their start."""
    found = {part for folder in folders for part in _parts_in(CHECKOUT / folder)}
    return sorted(found, key=lambda part: (LONG.index(part) if part in LONG else len(LONG), part))


def _parts_in(folder: Path) -> list[str]:
    if any(folder.glob('test_*.py')):
        return [str(folder.relative_to(CHECKOUT))]
    return [part for inner in folder.iterdir() if inner.is_dir() for part in _parts_in(inner)]


def run_parts(
    parts: Sequence[str], folder: Path, options: Sequence[str] = (), command: Sequence[str] = COMMAND
) -> list[Part]:
    """Puts into `folder` what each prints, and the branches it took, if the options tell it to measure them."""
    runner = _Runner(folder, [*command, *options])
    try:
        together = runner.run([part for part in parts if part not in ALONE], AT_ONCE)
        return together + runner.run([part for part in parts if part in ALONE], 1)
    finally:
        runner.processes.stop_all()


class _Runner:
    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.command = command
        self.processes = Processes(folder)

    def run(self, parts: Sequence[str], at_once: int) -> list[Part]:
        waiting, ended = list(parts), []
        running: dict[str, Child] = {}
        while waiting or running:
            while waiting and len(running) < at_once:
                part = waiting.pop(0)
                running[part] = self._start(part)
            wait_until(lambda: any(not child.running for child in running.values()), math.inf, interval=0.1)
            for part in [part for part, child in running.items() if not child.running]:
                ended.append(self._end(part, running.pop(part)))
        return ended

    def _start(self, part: str) -> Child:
        say(f'{part} …')
        name = part.strip('/').replace('/', '-')
        environment = os.environ | {'COVERAGE_FILE': str(self.folder / f'{name}.coverage')}
        command = [*self.command, part]
        return self.processes.start(name, command, environment=environment, folder=CHECKOUT, client=True)

    def _end(self, part: str, child: Child) -> Part:
        self.processes.children.remove(child)
        output = child.log.read_text(errors='replace')
        print(f'\n{part}\n{output}', flush=True)
        return Part(part, child.popen.returncode, output)


def summarize(parts: Sequence[Part]) -> int:
    """A line a part and their sum, on standard output. Returns the exit code of a part that failed, else 0."""
    total: Counter[str] = Counter()
    for part in parts:
        total += part.counts
        print(part.summary)
    failed = total['failed'] + total['error']
    print(f'Total: {total["passed"]} passed, {failed} failed, {total["skipped"]} skipped', flush=True)
    return next((part.code for part in parts if part.code), 0)
