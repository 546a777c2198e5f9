"""`scripts/demo [--once] [--port N]`: the plugin at work, from a saved object to the endpoint, and a failed delivery.

On a terminal NetBox stays up until Ctrl-C, and shows each request as it arrives. Otherwise, or with --once, the exit
code tells whether everything arrived.
"""

import argparse
import base64
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from time import monotonic, time

from devstack.api import Api
from devstack.brokers import Nats
from devstack.console import say
from devstack.demo_broker import ADDRESS, running_nats, settings_of, show_messages
from devstack.failure import Failure
from devstack.netbox import WebServer
from devstack.ports import reserve
from devstack.process import wait_until
from devstack.receiver import Answer, Received, Receiver
from devstack.show import BOLD, is_signed, paint, show, show_request, title
from devstack.showcase import Showcase
from devstack.stack import netbox_in, running_stack

USER = PASSWORD = 'admin'
HOOK, BROKEN = '/netbox', '/broken'
PATIENCE = 30.0
# NetBox's front page with our card.
DASHBOARD = """
DEFAULT_DASHBOARD = [
    {'widget': 'webhooks.WebhooksWidget', 'width': 4, 'height': 4, 'title': 'Webhooks', 'color': 'teal'},
    {'widget': 'extras.ObjectCountsWidget', 'width': 4, 'height': 4, 'title': 'IPAM',
     'config': {'models': ['ipam.prefix', 'ipam.ipaddress', 'ipam.vlan']}},
    {'widget': 'extras.ObjectCountsWidget', 'width': 4, 'height': 4, 'title': 'Organization',
     'config': {'models': ['dcim.site', 'tenancy.tenant', 'circuits.provider']}},
    {'widget': 'extras.ObjectListWidget', 'width': 12, 'height': 5, 'title': 'Change Log',
     'config': {'model': 'core.objectchange', 'page_size': 10}},
]
"""
HIGHEST_PORT = 65_535


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    if not reserve(options.port):
        raise Failure(f'Port {options.port} is in use; choose another: scripts/demo --port {options.port + 1}')
    with running_netbox(options.port, options.broker) as (server, broker), Receiver() as receiver:
        demo = Demo(Api(server.url), receiver, new_secret(), broker)
        demo.begin()
        if options.stay:
            say('Making a day of deliveries to look at')
            Showcase(demo.api, receiver, server.netbox.database, demo.secret).furnish()
        demo.run()
        if options.stay:
            demo.stay()
    return 0


def new_secret() -> str:
    return f'whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}'


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser('scripts/demo', description='Shows the plugin at work on a NetBox of its own.')
    parser.add_argument('--once', action='store_true', help='exit when everything has arrived')
    parser.add_argument('--port', type=_port, default=8000, help="NetBox's port (8000)")
    parser.add_argument('--broker', choices=['nats'], help='also publish the changes to a message broker')
    options = parser.parse_args(arguments)
    options.stay = sys.stdout.isatty() and sys.stdin.isatty() and not options.once
    return options


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f'a number from 1 to {HIGHEST_PORT}')
    return int(text)


@contextmanager
def running_netbox(port: int, driver: str | None = None) -> Iterator[tuple[WebServer, Nats | None]]:
    started = monotonic()
    say('Starting PostgreSQL and Redis')
    with ExitStack() as cleanup:
        stack = cleanup.enter_context(running_stack())
        broker = cleanup.enter_context(running_nats(stack)) if driver else None
        settings = DASHBOARD + (settings_of(broker) if broker else '')
        netbox = cleanup.enter_context(netbox_in(stack, 'netbox_demo', settings))
        say('Starting NetBox and rqworker')
        netbox.keep_warm(stack.folder)
        worker, server = netbox.start_worker(), netbox.start_server(port)
        netbox.create_superuser(USER, PASSWORD)
        server.wait_until_ready()
        worker.wait_until_ready()
        say(f'Ready after {monotonic() - started:.0f} s')
        yield server, broker


@dataclass
class Demo:
    api: Api
    receiver: Receiver
    secret: str
    broker: Nats | None = None

    def begin(self) -> None:
        self.api.log_in(USER, PASSWORD)
        title(f'NetBox {version("netbox")} at {self.api.base}   (login: {USER} / {PASSWORD})')

    def run(self) -> None:
        self._define_webhooks()
        self._change_a_site()
        if self.broker:
            show_messages(self.broker, 3)
        self._fail_a_delivery()

    def _define_webhooks(self) -> None:
        url = self.receiver.url(HOOK)
        title(f'A webhook sends every change of a site to {url}')
        every_change = {'type_create': True, 'type_update': True, 'type_delete': True}
        self._define('Sites', 'dcim.site', HOOK, **every_change)
        if self.broker:
            self._define('Sites to NATS', 'dcim.site', '', payload_url=self.broker.url(ADDRESS), **every_change)
        show(f'  {self.api.base}plugins/webhooks/webhooks/')

    def _define(self, name: str, object_type: str, path: str, **fields: object) -> None:
        common = {'payload_url': self.receiver.url(path), 'secret': self.secret, 'object_types': [object_type]}
        self.api.post('plugins/webhooks/webhooks/', name=name, **common | fields)

    def _change_a_site(self) -> None:
        title('A site is created, updated and deleted through the REST API')
        site = self.api.post('dcim/sites/', name='Bern', slug='bern', status='planned')
        created = self._arrival(1)
        self.api.patch(f'dcim/sites/{site["id"]}/', status='active', facility='Bundesplatz 3')
        self._arrival(2, before=created)
        self.api.delete(f'dcim/sites/{site["id"]}/')
        self._arrival(3, before=created)

    def _arrival(self, number: int, before: Received | None = None) -> Received:
        """Show the hook's newest request. The change was just answered."""
        answered = time()
        request = self._wait(number)[-1]
        waited = f', {1000 * max(0, request.arrived - answered):.0f} ms after the answer to the change'
        show_request(request, self.secret, waited, before and before.json())
        if not is_signed(request, self.secret):
            raise Failure('A request arrived without valid signatures')
        return request

    def _wait(self, number: int) -> list[Received]:
        try:
            return self.receiver.wait_for(number, lambda request: request.path == HOOK, PATIENCE)
        except TimeoutError as error:
            raise Failure(f'Not everything arrived: {error}') from None

    def _fail_a_delivery(self) -> None:
        title(f'A delivery that fails: {self.receiver.url(BROKEN)} answers 500, and the webhook may try only once')
        self.receiver.answers(BROKEN, Answer(500, b'out of order'))
        self._define('Tenants', 'tenancy.tenant', BROKEN, type_create=True, max_attempts=1)
        tenant = self.api.post('tenancy/tenants/', name='Federal Chancellery', slug='chancellery')
        failed = self._failed_delivery(tenant)
        self.receiver.answers(BROKEN, Answer(200))
        self._show_failed(failed)

    def _failed_delivery(self, tenant: dict) -> dict:
        def failed() -> list[dict]:
            return self.api.get('plugins/webhooks/deliveries/', status='failed', object_id=tenant['id'])['results']

        if not wait_until(failed, PATIENCE, interval=0.2):
            raise Failure(f'The delivery to {BROKEN} was not recorded as failed within {PATIENCE:.0f} s')
        return failed()[0]

    def _show_failed(self, delivery: dict) -> None:
        show(f'  It is kept as failed: {delivery["error"]}')
        show('  Retry it, now that the endpoint is well again,')
        show(f'    on the status page:    {self.api.base}admin/webhook-backend-status/   (job {delivery["uuid"]})')
        show(f'    on its own page:       {delivery["display_url"]}')
        show(f'    or with the REST API:  POST {delivery["url"]}redeliver/')

    def stay(self) -> None:
        title('Change something in NetBox, or retry the failed delivery: what is sent appears here.')
        show(f'  {self.api.base}plugins/webhooks/webhooks/   a day of deliveries; one webhook is suspended, one paused')
        show(f'{self.api.base}   login: {USER} / {PASSWORD}   {paint("Ctrl-C ends it all.", BOLD)}')
        shown = len(self.receiver.requests)
        while True:
            with suppress(TimeoutError):
                self.receiver.wait_for(shown + 1, timeout=3600)
            for request in self.receiver.requests[shown:]:
                show_request(request, self.secret)
                shown += 1
