"""Reads URLs of brokers: nats://bus/netbox.sites is the address netbox.sites of the broker bus."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from . import registry

# Driver and name. Only the address after them may have templates.
BROKER_URL = re.compile(r'([a-z][a-z0-9+.-]*)://([^/?#{}\s]*)(?:/|$)', re.IGNORECASE)
# A URL's scheme, which may be a driver's name.
SCHEME = re.compile(r'([a-z][a-z0-9+.-]*)://', re.IGNORECASE)


class Place(NamedTuple):
    """Where a message goes: the driver, the broker's name in the settings, and the address at that broker.

    An address is a subject, a topic, a stream or the like: each driver has its own.
    """

    driver: str
    name: str
    address: str

    @property
    def origin(self) -> str:
        """Return the URL without the address, such as nats://bus: it says which broker is meant."""
        return f'{self.driver}://{self.name}'


def is_broker(url: str) -> bool:
    """Return whether the URL, which may be a template, begins with the scheme of a driver."""
    scheme = SCHEME.match(url)
    return scheme is not None and scheme[1].lower() in registry.names()


def split(url: str) -> Place | None:
    """Return the parts of a broker's URL, the address unquoted.

    None if the URL is not a broker's, or if a template makes the broker's name.
    """
    if not is_broker(url):
        return None
    found = BROKER_URL.match(url)
    return Place(found[1].lower(), found[2], unquote(url[found.end() :])) if found else None
