"""The house has storeys: a module imports only from lines above its own. CONTRIBUTING.md says what each is for."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import webhooks

ROOT = Path(webhooks.__file__).parent

# A package (models, rendering, …) is one entry; inside it its modules import each other as they need.
LINES = (
    # pure: no settings, no models
    'version constants exceptions storable',
    'choices retry pace signing charts',
    # conf: the only reader of settings; transport: one request → outcome
    'conf sandbox interruptions schemas',
    'jinja conditions',
    'crypto addresses watchdog branching',
    'masking',
    'transport',
    'definition',
    'models',
    # instance → JSON; snapshots → API data in batches; event → body and headers
    'locks queue snapshots senders rendering formats batches notifications',
    'payloads line outbox health',
    # events → deliveries; deliveries → attempts
    'dispatch',
    'delivery status',
    'rescue',
    'drain followers warmup',
    'operations event_rules retention statistics history',
    # the doors: NetBox's signals in, RQ's job out
    'signals timer standby',
    'worker jobs object_types',
    # what people and other programs see
    'importing keys permissions querysets filtersets tables metrics checks search tabs dashboard notices',
    'forms panels object_actions preview removal',
    'admin_display admin_health admin_site mount',
    'admin_filters admin_base admin_forms admin_app',
    'admin_delivery admin_webhook',
    'admin views api graphql management navigation templatetags',
    'urls urlconf migrations',
)
STOREYS = {name: number for number, line in enumerate(LINES) for name in line.split()}
PURE = LINES[:2]
# The app's configuration imports when NetBox calls it: before that no model can be imported.
CONFIGURATION = ROOT / '__init__.py'


def top_of(path: Path) -> str:
    """Return the entry of LINES that a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix('.py')


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob('*.py')) if path != CONFIGURATION]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST, path: Path) -> Iterator[str]:
    """Yield the dotted names of what is imported anywhere below the node, absolute."""
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
    """Return the entries of LINES that are imported, other than the file's own."""
    dotted = [name.split('.') for name in imports(node, path)]
    found = {parts[1] for parts in dotted if parts[0] == 'webhooks' and len(parts) > 1}
    return found & STOREYS.keys() - {top_of(path)}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', files(), ids=relative)
def test_every_module_has_its_line(path: Path):
    assert top_of(path) in STOREYS, 'give it a place in LINES'


@pytest.mark.parametrize('path', files(), ids=relative)
def test_it_imports_from_above(path: Path):
    own_storey = STOREYS[top_of(path)]
    assert not {name for name in own(tree(path), path) if STOREYS[name] >= own_storey}


@pytest.mark.parametrize('path', files(), ids=relative)
def test_it_imports_its_own_at_the_top(path: Path):
    """An import inside a function hides a circle."""
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    assert not set().union(*(own(function, path) for function in functions))


@pytest.mark.parametrize('name', ' '.join(PURE).split())
def test_pure_modules_know_neither_settings_nor_models(name: str):
    path = ROOT / f'{name}.py'
    impure = ('django.conf', 'django.db', 'django.apps', 'netbox', 'extras', 'core')
    assert not [found for found in imports(tree(path), path) if found.startswith(impure)]


def test_only_conf_reads_the_plugins_settings():
    """What the rest asks of Django's settings is NetBox's."""
    for path in files():
        if top_of(path) != 'conf':
            names = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
            assert not names & {'PLUGINS_CONFIG', 'WEBHOOKS_ENABLED'}, relative(path)
