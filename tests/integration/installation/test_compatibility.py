"""COMPATIBILITY.md lists all foreign internals in use, and they exist."""

import ast
import importlib
import inspect
import re
from functools import cache

import pytest

from devstack.folders import CHECKOUT

TABLE = (CHECKOUT / 'COMPATIBILITY.md').read_text().partition('| of | name |')[2]
WEBHOOKS = CHECKOUT / 'webhooks'
# NetBox and some of its dependencies.
PACKAGES = (
    *('circuits', 'core', 'dcim', 'extras', 'ipam', 'netbox', 'tenancy', 'users', 'utilities', 'virtualization'),
    *('django_rq', 'rq', 'urllib3'),
)
NAME = re.compile(rf"`((?:django|{'|'.join(PACKAGES)})\.[\w.]+(?:\['\w+'\])?)`")
MODEL = re.compile(r'\w+\.models\.[A-Z]\w+')
# NetBox's docs for plugins describe these.
OF_NETBOX = (
    *('core.choices.JobIntervalChoices', 'extras.dashboard.utils', 'extras.dashboard.widgets', 'netbox.api.routers'),
    *('netbox.api.serializers', 'netbox.api.viewsets', 'netbox.events', 'netbox.filtersets', 'netbox.forms'),
    *('netbox.graphql.filters', 'netbox.graphql.types', 'netbox.jobs', 'netbox.models', 'netbox.plugins'),
    *('netbox.search', 'netbox.tables', 'netbox.views', 'utilities.choices', 'utilities.filters'),
    *('utilities.filtersets', 'utilities.forms', 'utilities.forms.fields', 'utilities.forms.rendering'),
    *('utilities.urls', 'utilities.views'),
)
# Their own docs describe these.
OF_OTHERS = (
    *('django_rq', 'rq', 'rq.exceptions', 'rq.job', 'rq.registry', 'rq.results', 'urllib3', 'urllib3.exceptions'),
    'netbox.settings',  # django.conf.settings does not work there yet
)


def rows() -> list[tuple[str, str, str]]:
    """Return (name, file that uses it, loss without it)."""
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in TABLE.splitlines() if line.startswith('| ')]
    return [(name, used, lost) for _of, names, used, lost in cells for name in NAME.findall(names)]


def resolve(dotted: str) -> object:
    """Import the longest part that is a module."""
    dotted, _, key = dotted.removesuffix("']").partition("['")
    parts = dotted.split('.')
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module('.'.join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = take(found, part)
        return found[key] if key else found
    raise AttributeError(dotted)


def take(owner: object, name: str) -> object:
    """Only the source shows attributes of instances."""
    if isinstance(owner, type) and not hasattr(owner, name):
        source = '\n'.join(inspect.getsource(one) for one in owner.__mro__[:-1])
        if line := re.search(rf'self\.{name}(: [^=\n]+)? = .*', source):
            return line[0]
    return getattr(owner, name)


@cache
def imports() -> list[tuple[str, str]]:
    """Return (dotted name, file)."""
    found = []
    for path in sorted(WEBHOOKS.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f'{node.module}.{alias.name}' for alias in node.names]
            else:
                continue
            file = str(path.relative_to(WEBHOOKS))
            found += [(name, file) for name in names if name.partition('.')[0] in PACKAGES]
    return found


def is_promised(name: str) -> bool:
    module = name.rpartition('.')[0]
    return bool(MODEL.fullmatch(name)) or not {name, module}.isdisjoint((*OF_NETBOX, *OF_OTHERS))


def is_listed(name: str, listed: set[str]) -> bool:
    """A listed name covers its module and its members."""
    return any(f'{one}.'.startswith(f'{name}.') or f'{name}.'.startswith(f'{one}.') for one in listed)


@pytest.mark.parametrize('name, used, lost', rows(), ids=lambda value: value if '`' not in value else '')
def test_each_name_that_is_imported_is_there(name: str, used: str, lost: str):
    try:
        resolve(name)
    except (AttributeError, KeyError):
        pytest.fail(f'{name} is not in this version. It is used in {used}. Without it: {lost}')


def test_a_name_that_is_missing_is_noticed():
    for name in ('rq.Worker._no_such_thing', 'netbox.no_such_module.thing'):
        with pytest.raises(AttributeError):
            resolve(name)
    with pytest.raises(KeyError):
        resolve("netbox.registry.registry['no_such_key']")


def test_whatever_is_imported_and_not_promised_is_in_the_table():
    listed = {name.partition('[')[0] for name, _used, _lost in rows()}
    missing = {name: file for name, file in imports() if not is_promised(name) and not is_listed(name, listed)}
    assert missing == {}


def test_most_imports_are_found_and_some_are_not_promised():
    found = {name for name, _file in imports()}
    assert {'netbox.plugins.PluginConfig', 'utilities.rqworker.NetBoxRQWorker', 'rq.Worker', 'urllib3'} <= found
    assert not is_promised('utilities.rqworker.NetBoxRQWorker')
    assert not is_listed('utilities.rqworker.NetBoxRQWorker', {'utilities.rqworker.Another', 'utilities.rq'})


@pytest.mark.parametrize('name', [*OF_NETBOX, *OF_OTHERS])
def test_each_promise_is_made_use_of(name: str):
    assert [found for found, _file in imports() if name in (found, found.rpartition('.')[0])]


def test_most_of_the_table_has_names():
    assert len(rows()) > 100


def test_every_file_that_is_named_exists():
    files = {name for _name, used, _lost in rows() for name in re.findall(r'`([\w/]+(?:\.py|/))`', used)}
    assert files
    assert [name for name in files if not (CHECKOUT / 'webhooks' / name).exists()] == []


def test_the_matrix_is_of_this_version():
    from webhooks.version import VERSION

    text = (CHECKOUT / 'COMPATIBILITY.md').read_text()
    tested = re.findall(r'^\| ([\d.]+) \|', text.partition('## Tested')[2].partition('| of |')[0], re.MULTILINE)
    assert set(tested) == {VERSION}
