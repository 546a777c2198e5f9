"""The contract of drivers: Driver, its Message, and the errors that say whether a message is sent again.

docs/extending.md shows a driver of another package.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message for a driver to publish.

    `key` names the object, such as dcim.site:1, or the webhook of a change set: messages with the same key have to stay
    in order. `id` is the same in each attempt. Names of headers are in lower case.
    """

    address: str
    key: str
    id: str
    headers: Mapping[str, str]
    body: bytes


class Away(Exception):
    """The broker is away, confirmed nothing in time, or is full: the message is sent again later.

    str() is the reason.
    """


class Lost(Away):
    """The connection was lost before the confirmation: the message is published once more, over a new connection."""


class Refused(Exception):
    """The broker does not want this message. str() has the broker's words.

    It counts as an attempt. The message is tried again as after an answer of 4xx, until its attempts are used up.
    """


class Driver(ABC):
    """A client for one broker and one process. Threads share it.

    It connects at the first message, and anew after the connection is lost.
    """

    # The library that the driver imports, and the requirement that pip installs for it. '' needs none.
    module = ''
    package = ''
    # The headers, of the broker's own kind, that carry a message's id and key. '': no header does.
    id_header = ''
    key_header = ''

    @abstractmethod
    def __init__(self, options: Mapping[str, Any]) -> None:
        """Take the broker's options, without `driver` and `addresses`. Connects nowhere.

        Raises TypeError or ValueError for a wrong option.
        """

    @classmethod
    def check_address(cls, address: str) -> None:
        """Raise ValueError, with the reason, if the broker cannot have such an address. Connects nowhere."""
        if not address:
            raise ValueError('it is empty')

    @abstractmethod
    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish the message, wait for the broker's confirmation, and return its details for the attempt's page.

        Ends within `timeout` seconds. Raises Away if the message is to be sent again later, or an OSError, but for
        a file that is missing or cannot be read. Any other error means that the broker refused the message.
        """

    def close(self) -> None:  # noqa: B027  (most have something to end)
        """End connections and threads. Its owner calls it at the end: nothing is published any more."""
