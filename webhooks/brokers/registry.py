"""Finds the brokers of PLUGINS_CONFIG, and loads their drivers."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from .. import conf
from ..constants import BROKER_DRIVERS, DRIVER_ENTRY_POINTS
from ..security import echoes
from .driver import Driver

# These options are for the plugin. The rest goes to the driver.
OUR_OPTIONS = ('driver', 'addresses')
# In the name of an option: its value, or all that is below it, is secret.
SECRET_OPTION = re.compile('pass|secret|token|key|seed|jwt|cred|auth|user|principal|virtual', re.IGNORECASE)
# In the name of an option: its value holds hosts.
HOST_OPTION = re.compile('host|server|url', re.IGNORECASE)
SOME_HOST = 'host.invalid'
# A host with a port, or an IP address, however a client writes it: ('127.0.0.1', 4222), ipv4#127.0.0.1:9092/1.
ADDRESS = re.compile(
    r"""\('[^']+',\ \d+(?:,\ \d+,\ \d+)?\)
    | (?:[a-z][a-z0-9+_]*://)?(?:ipv[46]\#)?(?:\[[0-9a-f:.%]+\]|[\w.-]*[a-z.][\w.-]*):\d{1,5}\b(?:/\w+)?
    | (?:\d{1,3}\.){3}\d{1,3}
    | (?<!\w)(?:[0-9a-f]*::[0-9a-f:.]*|(?:[0-9a-f]+:){3,}[0-9a-f:.]+)(?!\w)""",
    re.IGNORECASE | re.VERBOSE,
)


class Unusable(Exception):
    """A broker cannot be used until the operator mends the settings. str() says why."""


@dataclass(frozen=True)
class Broker:
    """A broker of the settings. `driver` is also the scheme of its URLs.

    `options` go to the driver, and may hold secrets. `addresses` are patterns, such as netbox.*: webhooks may use no
    other address.
    """

    name: str
    driver: str
    options: Mapping[str, Any] = field(repr=False)
    addresses: tuple[str, ...] = ('*',)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the texts in the options that no error may show.

        They are the values under names such as `password`, and the secret parts of URLs. Raises ValueError for an
        invalid URL.
        """
        return tuple(_secrets(self.options))

    def hide_addresses(self, error: str) -> str:
        """Return the error with the broker's name in place of its addresses: only operators need to know these.

        A client may have found some at the broker itself, so their form counts, and the hosts of the options.
        """
        for host in set(_hosts(self.options)):
            error = re.sub(rf'(?<![\w.-]){re.escape(host)}(?![\w.-]*\w)', SOME_HOST, error)
        return ADDRESS.sub(self.name, error).replace(SOME_HOST, self.name)

    def open(self) -> Driver:
        """Return a new driver, which connects later. Raises Unusable for a missing library or a wrong option."""
        self.check_library()
        try:
            return driver_class(self.driver)(self.options)
        except (TypeError, ValueError) as error:
            raise Unusable(f'the options of the broker {self.name} are wrong: {error}') from error

    def check_library(self) -> None:
        """Raise Unusable, with the line for pip, if the library of the driver is not installed."""
        driver = driver_class(self.driver)
        if driver.module and not _is_installed(driver.module):
            raise Unusable(
                _('The library for the broker {name} is missing. Install it: pip install {package}').format(
                    name=self.name, package=driver.package
                )
            )

    def check_address(self, address: str) -> None:
        """Raise Unusable if the driver has no such address, or the settings do not allow it to webhooks."""
        try:
            driver_class(self.driver).check_address(address)
        except ValueError as error:
            raise Unusable(_('This is not a valid address for the broker: {reason}.').format(reason=error)) from None
        if not any(fnmatchcase(address, pattern) for pattern in self.addresses):
            raise Unusable(_('The broker {name} does not allow this address.').format(name=self.name))


def names() -> frozenset[str]:
    """Return the names of all drivers, built in or from other packages. They are the schemes of brokers' URLs."""
    return frozenset({*BROKER_DRIVERS, *_added()})


def find(driver: str, name: str) -> Broker:
    """Return the broker of this name. Raises Unusable if the settings have none, or one of another driver."""
    options = conf.get().brokers.get(name)
    if options is None:
        raise Unusable(_('There is no broker {name} in the settings.').format(name=name))
    if options['driver'] != driver:
        raise Unusable(
            _('The URL of the broker {name} begins with {driver}://.').format(name=name, driver=options['driver'])
        )
    return _broker(name, options)


def configured() -> list[Broker]:
    """Return all brokers of the settings, for the system checks."""
    return [_broker(name, options) for name, options in conf.get().brokers.items()]


def _broker(name: str, options: Mapping[str, Any]) -> Broker:
    own = {key: value for key, value in options.items() if key not in OUR_OPTIONS}
    return Broker(name, options['driver'], own, tuple(options.get('addresses', ('*',))))


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    # Without paho, find_spec('paho.mqtt') does not return None: it fails to import paho.
    except ModuleNotFoundError:
        return False


@cache
def _added() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=DRIVER_ENTRY_POINTS)}


@cache
def driver_class(name: str) -> type[Driver]:
    """Return the class of the driver of this name, one of names(). It is imported when somebody first asks for it."""
    if name in BROKER_DRIVERS:
        return EntryPoint(name, BROKER_DRIVERS[name], DRIVER_ENTRY_POINTS).load()
    return _added()[name].load()


def _hosts(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names and addresses of hosts in a broker's options, without ports and logins."""
    for text, is_host in _texts(options, HOST_OPTION):
        for one in text.split(',') if is_host else ():
            with suppress(ValueError):
                yield from filter(None, [urlsplit(one if '//' in one else f'//{one.strip()}').hostname])


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that `Broker.secrets` returns."""
    for text, is_secret in _texts(options, SECRET_OPTION):
        if is_secret:
            yield text
        if '//' in text or '@' in text:
            yield from echoes.of_url(text, hides_path=True)


def _texts(value: Any, named: re.Pattern[str], is_named: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the texts in a value at any depth, and whether an option with such a name holds them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, named, is_named or bool(named.search(str(key))))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _texts(inner, named, is_named)
    elif isinstance(value, bytes):
        yield value.decode(errors='replace'), is_named
    elif isinstance(value, str):
        yield value, is_named
