"""A file imports only from lower layers, as CONTRIBUTING.md shows them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import webhooks

ROOT = Path(webhooks.__file__).parent
CONTRIBUTING = ROOT.parent / 'CONTRIBUTING.md'


def layers() -> list[list[str]]:
    """Return the indented lines, the lowest layer first."""
    block = CONTRIBUTING.read_text().partition('```layers\n')[2].partition('```')[0]
    lines = [line.split() for line in block.splitlines() if line.startswith(' ')]
    return lines[::-1]


# A folder is one entry: its files may import each other.
STOREYS = {name: number for number, line in enumerate(layers()) for name in line}
# No settings, no models.
PURE = (
    'choices.py', 'constants.py', 'exceptions.py', 'patience.py', 'storable.py', 'version.py',
    'engine/deliver/backoff.py', 'engine/deliver/choice.py', 'engine/deliver/fold.py', 'engine/deliver/lane.py',
    'security/signing.py',
)  # fmt: skip
IMPURE = ('django.conf', 'django.db', 'django.apps', 'netbox', 'extras', 'core', 'webhooks.conf', 'webhooks.models')
# It imports inside functions: models exist only when NetBox calls it.
CONFIGURATION = ROOT / '__init__.py'


def top_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix('.py')


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob('*.py')) if path != CONFIGURATION]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST, path: Path) -> Iterator[str]:
    package = ('webhooks', *path.relative_to(ROOT).parts[:-1])
    for found in ast.walk(node):
        if isinstance(found, ast.Import):
            yield from (alias.name for alias in found.names)
        elif isinstance(found, ast.ImportFrom):
            base = package[: len(package) - found.level + 1] if found.level else ()
            module = '.'.join([*base, *([found.module] if found.module else [])])
            yield module
            yield from (f'{module}.{alias.name}' for alias in found.names)


def own(node: ast.AST, path: Path) -> set[str]:
    dotted = [name.split('.') for name in imports(node, path)]
    found = {parts[1] for parts in dotted if parts[0] == 'webhooks' and len(parts) > 1}
    return found & STOREYS.keys() - {top_of(path)}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_entry_of_the_list_exists_and_every_file_has_its_place():
    assert {top_of(path) for path in files()} == STOREYS.keys(), 'give it a place in CONTRIBUTING.md'


def test_a_file_imports_only_from_lines_below():
    upward = {
        relative(path): [name for name in own(tree(path), path) if STOREYS[name] >= STOREYS[top_of(path)]]
        for path in files()
    }
    assert {path: names for path, names in upward.items() if names} == {}


@pytest.mark.parametrize(
    'code',
    [
        'from ..services import redelivery',
        'from .. import services',
        'import webhooks.services',
        'from webhooks.services.redelivery import redeliver',
        'def later():\n    from ..services import redelivery',
    ],
)
def test_an_import_from_above_is_noticed(code: str):
    path = ROOT / 'engine' / 'runner.py'
    assert own(ast.parse(code), path) == {'services'}
    assert STOREYS['services'] >= STOREYS[top_of(path)]


def doors() -> dict[str, set[str]]:
    """Return {file: modules of the engine that it may import}, as CONTRIBUTING.md shows them."""
    block = CONTRIBUTING.read_text().partition('```doors\n')[2].partition('```')[0]
    lines = [line.partition(': ') for line in block.splitlines()]
    # Two spaces begin the reason.
    return {path: {f'engine/{name}' for name in rest.partition('  ')[0].split()} for path, _colon, rest in lines}


def of_engine(node: ast.AST, path: Path) -> set[str]:
    """Return the modules of the engine that are imported, such as `engine/tidy/loop`, or a whole folder."""
    names = [name.split('.') for name in imports(node, path)]
    paths = ['/'.join(parts[1:]) for parts in names if parts[:2] == ['webhooks', 'engine']]
    found = {name for name in paths if (ROOT / f'{name}.py').exists() or (ROOT / name).is_dir()}
    # An import of a module names its folders too.
    return {name for name in found if not any(other.startswith(f'{name}/') for other in found)}


DOORS = {'engine/commands', 'engine/sql'}


def test_others_enter_the_engine_by_its_doors():
    others = [path for path in files() if top_of(path) != 'engine']
    entered = {relative(path): found for path in others if (found := of_engine(tree(path), path) - DOORS)}
    assert entered == doors()


@pytest.mark.parametrize(
    'code',
    [
        'from ..engine.deliver import order',
        'from ..engine.deliver.order import hold',
        'from webhooks.engine.deliver import order',
        'import webhooks.engine.deliver.order',
        'def later():\n    from ..engine.deliver import order',
    ],
)
def test_another_way_into_the_engine_is_noticed(code: str):
    assert of_engine(ast.parse(code), ROOT / 'services' / 'waiting.py') == {'engine/deliver/order'}


@pytest.mark.parametrize('code', ['from ..engine import deliver', 'import webhooks.engine.deliver'])
def test_a_whole_room_of_the_engine_is_another_way(code: str):
    assert of_engine(ast.parse(code), ROOT / 'services' / 'waiting.py') == {'engine/deliver'}


def imports_in_functions(path: Path) -> set[str]:
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    return set().union(*(own(function, path) for function in functions))


def test_a_file_imports_its_own_at_the_top():
    """An import inside a function hides a circle."""
    hidden = {relative(path): found for path in files() if (found := imports_in_functions(path))}
    assert hidden == {}


def impure(node: ast.AST, path: Path) -> list[str]:
    return [found for found in imports(node, path) if found.startswith(IMPURE)]


@pytest.mark.parametrize('name', PURE)
def test_pure_modules_know_neither_settings_nor_models(name: str):
    assert not impure(tree(ROOT / name), ROOT / name)


@pytest.mark.parametrize(
    'code',
    [
        'from .. import conf',
        'from ..conf import get',
        'from ..models import Webhook',
        'from webhooks.models.webhook import Webhook',
        'from django.conf import settings',
        'from django.db import models',
        'def later():\n    from .. import models',
    ],
)
def test_an_import_of_settings_or_models_is_noticed(code: str):
    assert impure(ast.parse(code), ROOT / 'engine' / 'backoff.py')
    assert not impure(ast.parse('from ..constants import JOB_SECONDS'), ROOT / 'engine' / 'backoff.py')


def reads_settings(node: ast.AST) -> bool:
    attributes = {found.attr for found in ast.walk(node) if isinstance(found, ast.Attribute)}
    names = {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}
    texts = {found.value for found in ast.walk(node) if isinstance(found, ast.Constant)}
    return bool((attributes | names | texts) & {'PLUGINS_CONFIG', 'WEBHOOKS_ENABLED', 'get_plugin_config'})


@pytest.mark.parametrize(
    'code',
    [
        'settings.PLUGINS_CONFIG["webhooks"]',
        'getattr(settings, "WEBHOOKS_ENABLED")',
        'from netbox.plugins import get_plugin_config; get_plugin_config("webhooks", "enabled")',
        'plugins.get_plugin_config("webhooks", "enabled")',
    ],
)
def test_reading_the_plugins_settings_is_noticed(code: str):
    assert reads_settings(ast.parse(code))


def test_only_conf_reads_the_plugins_settings():
    """The rest may read NetBox's settings only."""
    assert [relative(path) for path in files() if top_of(path) != 'conf' and reads_settings(tree(path))] == []
