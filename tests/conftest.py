"""Without `scripts/test` there is no NetBox, and only unit tests run."""

import gc
import os
from pathlib import Path

import hypothesis
import pytest

# The machine may be busy. Each run tries the same examples.
hypothesis.settings.register_profile(
    'patient', deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile('patient')

pytest_plugins = ['support.fixtures.servers', 'support.fixtures.database', 'support.fixtures.users']

UNIT = Path(__file__).parent / 'unit'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--long', action='store_true', help='run what takes long as well: more seeds and cases')
    parser.addoption('--release', action='store_true', help='also check what has to be done when a release is made')
    parser.addoption(
        '--fuzz', type=int, nargs='?', const=10_000, default=200, help='how many requests schemathesis makes (10,000)'
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> object:
    """NetBox's modules are no garbage. Looking for it among them takes a tenth of the processor time."""
    if 'WEBHOOKS_STACK' in os.environ:
        load_pages()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    return session.config.pluginmanager.get_plugin('main').pytest_runtestloop(session)


# Python's stack grows by pieces of 16 KB. A loop at the end of one maps and unmaps the next at each call, which takes
# another tenth. This frame has room for all.
pytest_runtestloop.__code__ = pytest_runtestloop.__code__.replace(co_stacksize=2**18)


def load_pages() -> None:
    """Import all views, which the first event that is rendered needs in any case."""
    from django.urls import get_resolver

    get_resolver().url_patterns  # noqa: B018


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker('long') and not item.config.getoption('--long'):
            item.add_marker(pytest.mark.skip('takes long: --long runs it'))
        if item.get_closest_marker('release') and not item.config.getoption('--release'):
            item.add_marker(pytest.mark.skip('for a release: --release runs it'))
    if 'WEBHOOKS_STACK' in os.environ:
        return
    for item in items:
        if UNIT not in item.path.parents:
            item.add_marker(pytest.mark.skip('needs the servers that scripts/test starts'))
