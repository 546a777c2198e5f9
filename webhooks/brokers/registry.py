"""The brokers of PLUGINS_CONFIG, and their drivers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from django.utils.translation import gettext as _

from .. import conf
from ..constants import BROKER_DRIVERS, DRIVER_ENTRY_POINTS
from ..security import echoes
from .driver import Driver

# The rest goes to the driver.
OURS = ('driver', 'addresses')
SECRET = re.compile('pass|secret|token|key|seed|jwt|cred|auth|sasl', re.IGNORECASE)


class Unusable(Exception):
    """str() says why a broker cannot be used."""


@dataclass(frozen=True)
class Broker:
    name: str
    driver: str
    options: Mapping[str, Any] = field(repr=False)
    addresses: tuple[str, ...] = ('*',)

    @property
    def driver_class(self) -> type[Driver]:
        return _load(self.driver)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no error may show."""
        return tuple(_secrets(self.options))

    def open(self) -> Driver:
        """Return a new driver. Raises Unusable."""
        self.check_library()
        try:
            return self.driver_class(self.options)
        except (TypeError, ValueError) as error:
            raise Unusable(f'the options of the broker {self.name} are wrong: {error}') from error

    def check_library(self) -> None:
        """Raises Unusable, with the line for pip."""
        driver = self.driver_class
        if driver.module and find_spec(driver.module) is None:
            raise Unusable(
                _('The library of the broker {name} is missing. Install it: pip install {package}').format(
                    name=self.name, package=driver.package
                )
            )

    def check_address(self, address: str) -> None:
        """Raises Unusable."""
        try:
            self.driver_class.check_address(address)
        except ValueError as error:
            raise Unusable(_('This is no address of a broker: {reason}.').format(reason=error)) from None
        if not any(fnmatchcase(address, pattern) for pattern in self.addresses):
            raise Unusable(_('The broker {name} does not allow this address.').format(name=self.name))


def names() -> frozenset[str]:
    """Return the drivers' names, which are the schemes of URLs."""
    return frozenset({*BROKER_DRIVERS, *_added()})


def find(driver: str, name: str) -> Broker:
    """Return the broker of the settings. Raises Unusable if there is none of this name and driver."""
    options = conf.get().brokers.get(name)
    if options is None:
        raise Unusable(_('There is no broker {name} in the settings.').format(name=name))
    if options['driver'] != driver:
        raise Unusable(
            _('The URL of the broker {name} begins with {driver}://.').format(name=name, driver=options['driver'])
        )
    return _broker(name, options)


def configured() -> list[Broker]:
    return [_broker(name, options) for name, options in conf.get().brokers.items()]


def _broker(name: str, options: Mapping[str, Any]) -> Broker:
    own = {key: value for key, value in options.items() if key not in OURS}
    return Broker(name, options['driver'], own, tuple(options.get('addresses') or ('*',)))


@cache
def _added() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=DRIVER_ENTRY_POINTS)}


@cache
def _load(name: str) -> type[Driver]:
    if name in BROKER_DRIVERS:
        return EntryPoint(name, BROKER_DRIVERS[name], DRIVER_ENTRY_POINTS).load()
    return _added()[name].load()


def _secrets(value: Any, is_secret: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(inner, is_secret or bool(SECRET.search(str(key))))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _secrets(inner, is_secret)
    elif isinstance(value, bytes):
        yield from _secrets(value.decode(errors='replace'), is_secret)
    elif isinstance(value, str):
        if is_secret:
            yield value
        if '@' in value:
            yield from echoes.of_url(value)
