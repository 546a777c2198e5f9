"""Each test file has one name in Python. Shared code is in `support`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# `python -m pytest` puts the checkout on the path, pyproject.toml the tests.
ON_THE_PATH = (TESTS.parent, TESTS)


def relative(path: Path) -> str:
    return str(path.relative_to(TESTS))


def imports(code: str) -> Iterator[tuple[int, str]]:
    """Yield dots and dotted names. An imported name may be a module."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f'{node.module}.{alias.name}'.removeprefix('None.')) for alias in node.names)


def found_in_tests(name: str) -> bool:
    parts = name.split('.')
    paths = [base.joinpath(*parts[:length]) for base in ON_THE_PATH for length in (len(parts), len(parts) - 1)]
    return any(TESTS in path.parents and (path.is_dir() or path.with_suffix('.py').exists()) for path in paths)


def wrong_imports(path: Path, code: str) -> list[str]:
    in_support = TESTS / 'support' in path.parents
    return [
        '.' * dots + name
        for dots, name in imports(code)
        if (dots and not in_support) or (not dots and found_in_tests(name) and not name.startswith('support.'))
    ]


@pytest.mark.parametrize('path', sorted(TESTS.rglob('*.py')), ids=relative)
def test_tests_import_shared_helpers_by_their_one_name(path: Path):
    assert not wrong_imports(path, path.read_text())


@pytest.mark.parametrize(
    'code',
    [
        'import tests.support.builders',
        'from tests.support.builders import site',
        'from tests.support import builders',
        'from unit.conftest import settings',
        'from browser.test_looks import look',
        'from conftest import UNIT',
        'import conftest',
        'from .test_define import add',
        'from . import conftest',
    ],
)
def test_an_import_by_another_name_or_from_another_test_is_noticed(code: str):
    assert wrong_imports(Path(__file__), code)


@pytest.mark.parametrize('code', ['from support.builders import site', 'from support import builders', 'import ast'])
def test_an_import_by_its_only_name_is_accepted(code: str):
    assert not wrong_imports(Path(__file__), code)
