"""COMPATIBILITY.md lists what of others' internals the plugin leans on: each name is there in this NetBox."""

import importlib
import re

import pytest

from devstack.folders import CHECKOUT

TABLE = (CHECKOUT / 'COMPATIBILITY.md').read_text().partition('| of | name |')[2]
# Packages of NetBox and of what it brings along.
NAME = re.compile(r'`((?:core|dcim|django_rq|extras|netbox|rq|urllib3|utilities)\.[\w.]+)`')


def rows() -> list[tuple[str, str, str]]:
    """Return (dotted name, where it is used, what is lost without it)."""
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in TABLE.splitlines() if line.startswith('| ')]
    return [(name, used, lost) for _of, names, used, lost in cells for name in NAME.findall(names)]


def resolve(dotted: str) -> object:
    """Import as much of the name as is a module, and take the rest from there."""
    parts = dotted.split('.')
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module('.'.join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(dotted)


@pytest.mark.parametrize('name, used, lost', rows(), ids=lambda value: value if '`' not in value else '')
def test_it_is_there(name: str, used: str, lost: str):
    try:
        resolve(name)
    except AttributeError:
        pytest.fail(f'{name} is not in this version. It is used in {used}. Without it: {lost}')


def test_a_name_that_is_missing_is_noticed():
    for name in ('rq.Worker.no_such_thing', 'netbox.no_such_module.thing'):
        with pytest.raises(AttributeError):
            resolve(name)


def test_most_of_the_table_has_names():
    assert len(rows()) > 30


def test_every_file_that_is_named_exists():
    files = {name for _name, used, _lost in rows() for name in re.findall(r'`([\w/]+(?:\.py|/))`', used)}
    assert files
    assert [name for name in files if not (CHECKOUT / 'webhooks' / name).exists()] == []


def test_the_matrix_is_of_this_version():
    from webhooks.version import VERSION

    text = (CHECKOUT / 'COMPATIBILITY.md').read_text()
    tested = re.findall(r'^\| ([\d.]+) \|', text.partition('| of |')[0], re.MULTILINE)
    assert set(tested) == {VERSION}
