"""The files are as CONTRIBUTING.md says: short, and each is in the map of its room, where the room has one."""

import re
from pathlib import Path

import pytest

import webhooks

ROOT = Path(webhooks.__file__).parent
FILES = [path for path in sorted(ROOT.rglob('*.py')) if path.parent.name != 'migrations']
LONGEST = 350
# Rooms with so many files that their docstring shows a map of them.
MAPPED = ('engine', 'services')


def modules(room: str) -> set[str]:
    return {path.stem for path in (ROOT / room).glob('*.py')} - {'__init__'}


def columns(line: str) -> list[list[str]]:
    """Return the words of each column: columns stand two spaces apart or more."""
    return [column.split() for column in re.split(' {2,}', line.strip())]


def on_the_map(text: str, there: set[str]) -> set[str]:
    """Return the modules that have a column, alone or with others: a column of other words describes them."""
    rows = [row for row in map(columns, text.splitlines()) if len(row) > 1]
    return {word for row in rows for column in row if there.issuperset(column) for word in column}


def test_no_file_is_too_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
    assert max(lengths.values()) > LONGEST / 2


@pytest.mark.parametrize('room', MAPPED)
def test_each_file_of_a_room_is_on_its_map(room: str):
    text = (ROOT / room / '__init__.py').read_text()
    assert modules(room) - on_the_map(text, modules(room)) == set()


@pytest.mark.parametrize('room', MAPPED)
def test_each_line_of_a_map_begins_with_a_file_that_is_there(room: str):
    rows = [row for row in map(columns, (ROOT / room / '__init__.py').read_text().splitlines()) if len(row) > 1]
    assert rows
    assert [row[0] for row in rows if not modules(room).issuperset(row[0])] == []


def test_a_file_that_is_only_mentioned_is_not_on_the_map():
    text = 'claims and lanes\n\nclaims  sql   lanes are held by claims   ordering'
    assert on_the_map(text, {'claims', 'lanes', 'ordering', 'sql'}) == {'claims', 'ordering', 'sql'}
