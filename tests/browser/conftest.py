"""A shared NetBox with a worker and a browser, and its users.

Tests use only pages and the REST API: Django refuses Playwright's event loop in this thread.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from support.browser.person import Person
from support.fixtures.servers import StackDescription

from devstack.api import Api
from devstack.browser import log_in, running_browser
from devstack.database import copy_database, drop_database
from devstack.demo import DASHBOARD
from devstack.netbox import NetBox, WebServer
from devstack.process import Processes
from devstack.redis import RedisAddress, RedisServer

ADMIN = 'admin'
PASSWORD = 'correct-Horse-4-battery'
# Milliseconds, on the slowest machine.
PATIENCE = 60_000


@dataclass
class Place:
    """Each person logs in once, in `browsers`: a new one would load and compile NetBox's scripts and styles again."""

    server: WebServer
    api: Api
    browsers: dict[str, BrowserContext] = field(default_factory=dict)

    def add_user(self, name: str, **actions: list[str]) -> None:
        """Permissions have an underscore for the dot: webhooks_webhook=['view']."""
        user = self.api.post('users/users/', username=name, password=PASSWORD)
        for label, allowed in actions.items():
            types = [label.replace('_', '.', 1)]
            self.api.post(
                'users/permissions/', name=f'{name} {label}', object_types=types, actions=allowed, users=[user['id']]
            )


@pytest.fixture(scope='package')
def place(stack: StackDescription, processes: Processes) -> Iterator[Place]:
    """Its own database and Redis keep its worker from other tests."""
    redis = RedisServer('redis-browser', stack.folder, processes)
    redis.start()
    database = copy_database(stack.server, stack.template, f'browser_{os.getpid()}')
    caching = RedisAddress(redis.address.host, redis.port, db=1)
    netbox = NetBox(stack.folder / 'browser', database, caching, redis.address, processes, DASHBOARD)
    netbox.write_configuration()
    netbox.keep_warm(stack.folder)
    worker, server = netbox.start_worker(), netbox.start_server()
    netbox.create_superuser(ADMIN, PASSWORD)
    server.wait_until_ready()
    worker.wait_until_ready()
    place = Place(server, Api(server.url))
    place.api.log_in(ADMIN, PASSWORD)
    yield place
    # Its stop would wait for a running drain.
    worker.kill()
    worker.stop()
    server.stop()
    redis.stop()
    drop_database(stack.server, database.name)


@pytest.fixture(scope='package')
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with running_browser() as browser:
        yield browser


@pytest.fixture
def api(place: Place) -> Iterator[Api]:
    """Afterwards delete all webhooks and so all deliveries."""
    yield place.api
    for webhook in place.api.get('plugins/webhooks/webhooks/', limit=0)['results']:
        place.api.delete(f'plugins/webhooks/webhooks/{webhook["id"]}/')


@pytest.fixture
def person(place: Place, chromium: Browser, api: Api) -> Iterator[Callable[..., Person]]:
    """Open a page for `person('clerk')`, logged in. Its problems fail the test.

    With options, such as a locale, somebody who is logged in already gets another browser.
    """
    people: list[Person] = []
    others: list[BrowserContext] = []

    def new(**options: object) -> BrowserContext:
        context = chromium.new_context(base_url=place.server.url, reduced_motion='reduce', **options)
        context.set_default_timeout(PATIENCE)
        return context

    def sit_down(name: str, **options: object) -> Person:
        context = place.browsers.get(name) or new()
        if options:
            others.append(context := new(storage_state=context.storage_state(), **options))
        someone = Person(context.new_page(), place.server.url)
        people.append(someone)
        if name not in place.browsers:
            log_in(someone.page, place.server.url, name, PASSWORD)
            place.browsers[name] = context
        return someone

    yield sit_down
    for someone in people:
        someone.leave()
    for context in others:
        context.close()


@pytest.fixture
def admin(person: Callable[..., Person]) -> Person:
    return person(ADMIN)
