"""NATS JetStream: the address is the subject, and the confirmation the stream's acknowledgement."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .background import Background
from .driver import Away, Driver, Lost, Message, Refused

# Spaces separate NATS's arguments, wildcards are for readers, and $ begins NATS's own subjects.
SUBJECT = re.compile(r'(?!\$)[^\s*>.]+(\.[^\s*>.]+)*')
# Answers 503, and streams that drop nothing old and are full.
FULL = re.compile('maximum (messages|bytes)|insufficient|resource limits|no space', re.IGNORECASE)
OF_PUBLISH = re.compile('permissions violation for publish to "(.+)"', re.IGNORECASE)


class Nats(Driver):
    """Options are those of nats.connect()."""

    module, package = 'nats', 'netbox-webhooks[nats]'

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._connection: Any = None
        self._connecting = asyncio.Lock()
        # What ends the wait for an answer, by subject.
        self._waiting: defaultdict[str, set[asyncio.Future]] = defaultdict(set)
        self._background = Background('webhooks-nats')

    @classmethod
    def check_address(cls, address: str) -> None:
        if not SUBJECT.fullmatch(address):
            raise ValueError('a subject has names between dots, without spaces, * and >, and does not begin with $')

    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        return self._background.run(self._publish(message, timeout), timeout)

    async def _publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        from nats.js.errors import APIError, NoStreamResponseError

        stream = (await self._connected()).jetstream()
        headers = {**message.headers, 'Nats-Msg-Id': message.id}
        acknowledged = stream.publish(message.address, message.body, timeout=timeout, headers=headers)
        try:
            answer = await self._unless_trouble(message.address, acknowledged)
        except NoStreamResponseError as error:
            raise Refused(f'no stream takes the subject {message.address}') from error
        except APIError as error:
            words = error.description or str(error)
            raise (Away if error.code == 503 or FULL.search(words) else Refused)(words) from error
        shown = {'stream': answer.stream, 'sequence': answer.seq}
        return shown | ({'duplicate': True} if answer.duplicate else {})

    async def _unless_trouble(self, subject: str, work: Any) -> Any:
        """NATS tells only the connection that it may not publish, and a lost one tells nobody."""
        trouble, answer = asyncio.get_running_loop().create_future(), asyncio.ensure_future(work)
        self._waiting[subject].add(trouble)
        try:
            await asyncio.wait((answer, trouble), return_when=asyncio.FIRST_COMPLETED)
            return await (answer if answer.done() else trouble)
        finally:
            answer.cancel()
            trouble.cancel()
            self._waiting[subject].discard(trouble)
            if not self._waiting[subject]:
                del self._waiting[subject]

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._connection is None or not self._connection.is_connected:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Any:
        import nats
        from nats.errors import NoServersError

        callbacks = {'error_cb': self._note, 'disconnected_cb': self._lose, 'closed_cb': self._lose}
        try:
            # A lost connection is made anew for the next message.
            return await nats.connect(**{'name': 'netbox-webhooks'} | self._options | callbacks, allow_reconnect=False)
        except (NoServersError, OSError) as error:
            raise Away(f'no connection: {error}') from error

    async def _note(self, error: Exception) -> None:
        if found := OF_PUBLISH.search(str(error)):
            self._tell(found[1], Refused(str(error)))

    async def _lose(self) -> None:
        for subject in list(self._waiting):
            self._tell(subject, Lost('the connection was lost'))

    def _tell(self, subject: str, error: Exception) -> None:
        for trouble in self._waiting.get(subject, ()):
            if not trouble.done():
                trouble.set_exception(error)

    def close(self) -> None:
        self._background.close(self._connection.close() if self._connection else None)
