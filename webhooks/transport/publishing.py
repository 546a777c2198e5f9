"""Publishes requests to message brokers: the driver's confirmation or error becomes an Outcome."""

import logging
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
from . import blocked_networks
from .exchange import MAX_ERROR_CHARS, MAX_HEADER_CHARS, SHORTAGE_ERRNOS, Outcome, Request, check_headers

logger = logging.getLogger('webhooks.delivery')

# OSErrors of a wrong file in the broker's options. They do not mean that the broker is away.
WRONG_FILE_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class Publisher:
    """Publishes messages to brokers, for one worker. Keeps a driver for each broker. Threads may share it."""

    def __init__(self) -> None:
        self._drivers: dict[str, Driver] = {}
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close all drivers, ignoring their errors."""
        for driver in self._drivers.values():
            # If one driver fails, the next must be closed all the same.
            with suppress(Exception):
                driver.close()

    def send(self, request: Request, place: Place) -> Outcome:
        """Publish the request at this place, and return the outcome. Takes up to `request.timeout` seconds.

        Each error of the settings, the driver, the broker or the network becomes an outcome.
        """
        started_at, start = time.time(), time.monotonic()
        secrets, broker = list(request.secrets), None
        try:
            broker = registry.find(place.driver, place.name)
            secrets += broker.secrets
            result = self._publish(broker, request, place, secrets)
        except Exception as error:
            # A driver may raise anything. If it were raised here, one message would stop all others of the worker.
            result = _failure(error, request)
            whole = Echoes(secrets).beginning(result['error'], MAX_ERROR_CHARS)
            result['error'] = broker.hide_addresses(whole) if broker else whole
            if result['error'] != whole:
                logger.warning('delivery=%s broker=%s error=%r', request.id, place.name, whole)
        return Outcome(started_at=started_at, duration=time.monotonic() - start, **result)

    def _publish(self, broker: Broker, request: Request, place: Place, secrets: Iterable[str]) -> dict[str, Any]:
        """Publish, and return the outcome's fields: the confirmation as headers, masked."""
        check_headers(request.headers)
        message = Message(
            address=place.address,
            key=request.key,
            id=request.id,
            # Some clients act on certain headers, such as CC or Nats-Rollup. In lower case they act on none.
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.body,
        )
        confirmation = _published(self._driver(broker), message, request.timeout)
        echoes = Echoes(secrets)
        return {
            'headers': {
                name: printable(echoes.beginning(str(value), MAX_HEADER_CHARS))[:MAX_HEADER_CHARS]
                for name, value in confirmation.items()
            }
        }

    def _driver(self, broker: Broker) -> Driver:
        with self._opening:
            if broker.name not in self._drivers:
                self._drivers[broker.name] = broker.open()
            return self._drivers[broker.name]


def _published(driver: Driver, message: Message, timeout: float) -> Mapping[str, object]:
    """Publish the message, and return the confirmation. After a lost connection it is published once more.

    A connection may end while nothing is under way, or by another's message.
    """
    end = time.monotonic() + timeout
    try:
        return driver.publish(message, timeout)
    except Lost:
        left = end - time.monotonic()
        if left <= 0:
            raise
        return driver.publish(message, left)


def _failure(error: Exception, request: Request) -> dict[str, Any]:
    """Return the outcome's fields for an error.

    `starved`: this machine is short of something. `unreachable`: the broker is away, or cannot be used now.
    """
    if isinstance(error, OSError) and error.errno in SHORTAGE_ERRNOS:
        return {'error': _reason(error), 'starved': True}
    # If a broker cannot be used, the operator may mend the settings. Until then deliveries wait.
    is_away = isinstance(error, Away | Unusable) or (
        isinstance(error, OSError) and not isinstance(error, WRONG_FILE_ERRORS)
    )
    if is_away:
        try:
            # Without descriptors a client may fail as if the broker's name were unknown, or wait for one in vain.
            blocked_networks.check_descriptors()
        except OSError as shortage:
            if shortage.errno in SHORTAGE_ERRNOS:
                return {'error': _reason(shortage), 'starved': True}
    if isinstance(error, TimeoutError):
        return {'error': f'no confirmation within {request.timeout:g} seconds', 'unreachable': True}
    return {'error': _reason(error), 'unreachable': is_away}


def _reason(error: Exception) -> str:
    """Return the error's words, with its type if a library raised it."""
    words = str(error).strip()
    return words if isinstance(error, Away | Refused | Unusable) and words else f'{type(error).__name__}: {words}'
