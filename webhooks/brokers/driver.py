"""What a driver is. docs/extending.md shows one of another package."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a driver publishes.

    `key` names the object, such as dcim.site:1: messages of one key have to stay in order. `id` is the same in each
    attempt. Names of headers are in lower case.
    """

    address: str
    key: str
    id: str
    headers: Mapping[str, str]
    body: bytes


class Away(Exception):
    """The broker is away, confirmed nothing in time, or is full. str() says what happened."""


class Lost(Away):
    """The connection was lost before the confirmation. With a new one the message is published once more."""


class Refused(Exception):
    """The broker does not want this message. str() has its words."""


class Driver(ABC):
    """One broker, for one process. Threads share it.

    It connects at the first message, and anew after the connection is lost.
    """

    # What is imported, and what pip installs for it.
    module = ''
    package = ''

    @abstractmethod
    def __init__(self, options: Mapping[str, Any]) -> None:
        """Take the broker's options, without `driver` and `addresses`. Connects nowhere.

        Raises TypeError or ValueError for a wrong option.
        """

    @classmethod
    def check_address(cls, address: str) -> None:
        """Raise ValueError, with the reason, if the broker has no such address."""
        if not address:
            raise ValueError('it is empty')

    @abstractmethod
    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish the message, and return what the broker says of it, after it has confirmed.

        Ends within `timeout` seconds. Raises Away if the message is to be sent again later, as do TimeoutError and
        ConnectionError, and anything else if the broker refused it.
        """

    def close(self) -> None:  # noqa: B027  (most have something to end)
        """End connections and threads. Nothing is published any more."""
