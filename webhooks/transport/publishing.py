"""Publishes to message brokers: what a driver returns or raises becomes an Outcome."""

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ..brokers import registry
from ..brokers.address import Place
from ..brokers.driver import Away, Driver, Lost, Message, Refused
from ..brokers.registry import Broker, Unusable
from ..security.echoes import Echoes
from ..storable import printable
from .exchange import MAX_ERROR, MAX_HEADER, SHORTAGES, Outcome, Request, check_headers

# A wrong file in the broker's options.
WRONG_FILES = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class Publisher:
    """Keeps one driver for each broker, until it is closed. Threads may share it."""

    def __init__(self) -> None:
        self._drivers: dict[str, Driver] = {}
        self._opening = threading.Lock()

    def close(self) -> None:
        for driver in self._drivers.values():
            # One that fails must not keep the others.
            with suppress(Exception):
                driver.close()

    def send(self, request: Request, place: Place) -> Outcome:
        """Publish the request at this place. Never raises for the broker or the network."""
        started_at, start = time.time(), time.monotonic()
        secrets = list(request.secrets)
        try:
            broker = registry.find(place.driver, place.name)
            secrets += broker.secrets
            result = self._publish(broker, request, place, secrets)
        except Exception as error:
            # One message must never stop others, whatever its driver raises.
            result = _failure(error, request)
            result['error'] = Echoes(secrets).beginning(result['error'], MAX_ERROR)
        return Outcome(started_at=started_at, duration=time.monotonic() - start, **result)

    def _publish(self, broker: Broker, request: Request, place: Place, secrets: Iterable[str]) -> dict[str, Any]:
        check_headers(request.headers)
        message = Message(
            address=place.address,
            key=request.key,
            id=request.id,
            # So a broker's client takes none for its own, such as CC or Nats-Rollup.
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.body,
        )
        confirmation = _published(self._driver(broker), message, request.timeout)
        echoes = Echoes(secrets)
        return {
            'headers': {
                name: printable(echoes.beginning(str(value), MAX_HEADER))[:MAX_HEADER]
                for name, value in confirmation.items()
            }
        }

    def _driver(self, broker: Broker) -> Driver:
        with self._opening:
            if broker.name not in self._drivers:
                self._drivers[broker.name] = broker.open()
            return self._drivers[broker.name]


def _published(driver: Driver, message: Message, timeout: float) -> Mapping[str, object]:
    """A connection may end while nothing is under way, or by another's message."""
    end = time.monotonic() + timeout
    try:
        return driver.publish(message, timeout)
    except Lost:
        left = end - time.monotonic()
        if left <= 0:
            raise
        return driver.publish(message, left)


def _failure(error: Exception, request: Request) -> dict[str, Any]:
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return {'error': _reason(error), 'starved': True}
    if isinstance(error, TimeoutError):
        return {'error': f'no confirmation within {request.timeout:g} seconds', 'unreachable': True}
    # The operator may mend the settings: until then deliveries wait.
    is_away = isinstance(error, Away | Unusable) or (isinstance(error, OSError) and not isinstance(error, WRONG_FILES))
    return {'error': _reason(error), 'unreachable': is_away}


def _reason(error: Exception) -> str:
    words = str(error).strip()
    return words if isinstance(error, Away | Refused | Unusable) and words else f'{type(error).__name__}: {words}'
