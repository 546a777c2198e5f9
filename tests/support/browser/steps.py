import itertools
from typing import Any

from devstack.api import Api
from devstack.process import wait_until

# Seconds, on the slowest machine.
PATIENCE = 60

_numbers = itertools.count(1)


def add_webhook(api: Api, url: str, **fields: Any) -> dict[str, Any]:
    defaults = {'name': f'Webhook {next(_numbers)}', 'object_types': ['dcim.site'], 'type_create': True}
    return api.post('plugins/webhooks/webhooks/', **defaults | {'payload_url': url} | fields)


def add_site(api: Api) -> dict[str, Any]:
    number = next(_numbers)
    return api.post('dcim/sites/', name=f'Site {number}', slug=f'site-{number}')


def add_sites(api: Api, count: int) -> None:
    numbers = [next(_numbers) for _ in range(count)]
    api.post_all('dcim/sites/', [{'name': f'Site {number}', 'slug': f'site-{number}'} for number in numbers])


def delivery_of(api: Api, site: dict[str, Any], status: str) -> dict[str, Any]:
    """Wait until the site's only delivery has that status."""

    def found() -> list[dict[str, Any]]:
        return api.get('plugins/webhooks/deliveries/', object_id=site['id'], status=status)['results']

    assert wait_until(found, PATIENCE, interval=0.2), f'{site["name"]} was not {status}'
    return found()[0]
