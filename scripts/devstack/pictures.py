"""`scripts/pictures [name …]`: all pictures of the docs, or the named ones, from a demo of its own."""

import io
from typing import Any, NamedTuple

from PIL import Image
from playwright.sync_api import Browser, Page

from devstack.api import Api
from devstack.browser import log_in, running_browser
from devstack.console import say
from devstack.demo import PASSWORD, USER, new_secret, running_netbox
from devstack.failure import Failure
from devstack.folders import CHECKOUT
from devstack.ports import free_port, is_free
from devstack.receiver import Receiver
from devstack.showcase import Showcase

FOLDER = CHECKOUT / 'docs' / 'images'
WIDTH = 1280
# A fixed port, if it is free, keeps the pictures the same.
RECEIVER_PORT = 8080


class Picture(NamedTuple):
    """The upper part of a page. `path` may contain names from `ids`."""

    name: str
    path: str
    height: int = 800
    dark: bool = False


PICTURES = (
    Picture('dashboard', '', 500),
    Picture('webhooks', 'plugins/webhooks/webhooks/', 620),
    Picture('webhook', 'plugins/webhooks/webhooks/{healthy}/', 1000),
    Picture('webhook-dark', 'plugins/webhooks/webhooks/{failing}/', 1000, dark=True),
    Picture('suspended', 'plugins/webhooks/webhooks/{suspended}/', 560),
    Picture('form', 'plugins/webhooks/webhooks/add/', 1200),
    Picture('deliveries', 'plugins/webhooks/deliveries/', 800),
    Picture('delivery', 'plugins/webhooks/deliveries/{failed}/', 1000),
    Picture('object', 'ipam/ip-addresses/{address}/webhooks/', 600),
    Picture('admin', 'admin/webhooks/webhook/', 640),
    Picture('admin-form', 'admin/webhooks/webhook/add/', 1000),
    Picture('status', 'plugins/webhooks/status/', 900),
    Picture('queues', 'admin/webhook-backend-status/', 620),
    Picture('failed', 'admin/webhook-backend-status/queues/2/failed/', 600),
)


def main(arguments: list[str]) -> int:
    wanted = [picture for picture in PICTURES if not arguments or picture.name in arguments]
    if unknown := set(arguments) - {picture.name for picture in PICTURES}:
        raise Failure(f'No such picture: {", ".join(sorted(unknown))}')
    receiver = Receiver(RECEIVER_PORT if is_free(RECEIVER_PORT) else 0)
    with running_netbox(free_port()) as (server, _broker), receiver, running_browser() as browser:
        api = Api(server.url)
        api.log_in(USER, PASSWORD)
        say('Making a day of deliveries to look at')
        Showcase(api, receiver, server.netbox.database, new_secret()).furnish()
        Photographer(browser, server.url, ids(api)).take(wanted)
    return 0


def ids(api: Api) -> dict[str, Any]:
    def first(path: str, **filters: Any) -> dict[str, Any]:
        return api.get(path, limit=1, **filters)['results'][0]

    def webhook(name: str) -> int:
        return first('plugins/webhooks/webhooks/', name=name)['id']

    return {
        'healthy': webhook('Address management'),
        'failing': webhook('Billing'),
        'suspended': webhook('Switches'),
        'failed': first('plugins/webhooks/deliveries/', status='failed')['id'],
        'address': first('ipam/ip-addresses/')['id'],
    }


class Photographer:
    def __init__(self, browser: Browser, base: str, ids: dict[str, Any]) -> None:
        self.browser = browser
        self.base = base
        self.ids = ids

    def take(self, pictures: list[Picture]) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for dark in (False, True):
            page = self._page(dark)
            for picture in pictures:
                if picture.dark is dark:
                    self._take(page, picture)
            page.context.close()

    def _page(self, dark: bool) -> Page:
        context = self.browser.new_context(color_scheme='dark' if dark else 'light', reduced_motion='reduce')
        page = context.new_page()
        log_in(page, self.base, USER, PASSWORD)
        return page

    def _take(self, page: Page, picture: Picture) -> None:
        page.set_viewport_size({'width': WIDTH, 'height': picture.height})
        page.goto(self.base + picture.path.format(**self.ids), wait_until='networkidle')
        size = _save(page.screenshot(animations='disabled'), picture.name)
        say(f'{picture.name}.png, {size / 1024:.0f} KiB')


def _save(png: bytes, name: str) -> int:
    """Even rare colours matter, such as a button's."""
    path = FOLDER / f'{name}.png'
    Image.open(io.BytesIO(png)).convert('RGB').quantize(method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    return path.stat().st_size
