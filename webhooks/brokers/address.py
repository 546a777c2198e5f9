"""URLs of brokers: nats://bus/netbox.sites is the address netbox.sites of the broker bus."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from . import registry

# Templates may follow the name.
BROKER = re.compile(r'([a-z][a-z0-9+.-]*)://([^/?#{}\s]*)(?:/|$)', re.IGNORECASE)
SCHEME = re.compile(r'([a-z][a-z0-9+.-]*)://', re.IGNORECASE)


class Place(NamedTuple):
    driver: str
    name: str
    address: str

    @property
    def origin(self) -> str:
        return f'{self.driver}://{self.name}'


def is_broker(url: str) -> bool:
    """Whether the URL, which may be a template, begins with a broker's scheme."""
    scheme = SCHEME.match(url)
    return scheme is not None and scheme[1].lower() in registry.names()


def split(url: str) -> Place | None:
    """Return the parts of a broker's URL. None: it is none, or a template makes the broker's name."""
    if not is_broker(url):
        return None
    found = BROKER.match(url)
    return Place(found[1].lower(), found[2], unquote(url[found.end() :])) if found else None
