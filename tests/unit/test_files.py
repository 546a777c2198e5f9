"""The files are short and mapped, as CONTRIBUTING.md says."""

import ast
import re
from pathlib import Path

import pytest

import webhooks

ROOT = Path(webhooks.__file__).parent
FILES = [path for path in sorted(ROOT.rglob('*.py')) if path.parent.name != 'migrations']
LONGEST = 500
# Their names say it all: a migration's number, a command.
UNMAPPED = ('migrations', 'management', 'management/commands', 'presets')
MAPPED = sorted(
    room for path in ROOT.rglob('__init__.py') if (room := str(path.parent.relative_to(ROOT))) not in ('.', *UNMAPPED)
)


def modules(room: str) -> set[str]:
    found = [*(ROOT / room).glob('*.py'), *(path.parent for path in (ROOT / room).glob('*/__init__.py'))]
    return {path.stem for path in found} - {'__init__'}


def on_the_map(text: str) -> set[str]:
    """Read lines such as "claims, sql: …"."""
    heads = [line.partition(':')[0].split(', ') for line in text.splitlines() if ':' in line]
    return {name for names in heads if all(map(str.isidentifier, names)) for name in names}


def test_no_file_is_too_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
    assert max(lengths.values()) > LONGEST / 2


@pytest.mark.parametrize('room', MAPPED)
def test_the_map_of_a_room_names_its_files(room: str):
    docstring = ast.get_docstring(ast.parse((ROOT / room / '__init__.py').read_text()))
    assert modules(room) - set(re.findall(r'\w+', docstring)) == set()
    assert on_the_map(docstring) - modules(room) == set()


def test_a_file_that_is_only_mentioned_is_not_on_the_map():
    assert on_the_map('Of claims and lanes: see there.\n\nclaims, sql: hold lanes.\nordering: waits.') == {
        'claims',
        'sql',
        'ordering',
    }
