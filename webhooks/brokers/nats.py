"""Publishes to NATS JetStream. The address is the subject; the stream's acknowledgement confirms a message."""

import asyncio
import random
import re
import ssl
from collections import defaultdict
from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

from .background import Background
from .driver import Away, Driver, Lost, Message, Refused

# Spaces separate NATS's arguments, wildcards are for readers, and $ begins NATS's own subjects.
SUBJECT = re.compile(r'(?!\$)[^\s*>.]+(\.[^\s*>.]+)*')
# A server ends the connection after a line with subject and reply of more than 4,096 bytes.
MAX_SUBJECT_BYTES = 1024
# A server that falls silent is noticed after three of these, not after the client's six minutes.
PING_INTERVAL_SECONDS = 20
MAX_OUTSTANDING_PINGS = 2
# The client's own default.
DEFAULT_SERVER = 'nats://localhost:4222'
# JetStream's subject for the question which stream has a subject.
STREAM_NAMES = '$JS.API.STREAM.NAMES'
# So long after the server has named a forbidden subject, a message counts as refused.
VIOLATION_SECONDS = 0.5
# JetStream's errors of a stream that is full, and drops nothing old: there may be room later.
FULL_STREAM = re.compile('maximum (messages|bytes)|insufficient|resource limits|no space', re.IGNORECASE)
# What a server says to a login that it does not know, or no longer. The client has no type for each of these.
LOGIN_REFUSED = re.compile('authorization|authentication (expired|revoked)', re.IGNORECASE)
# NATS's error for the whole connection. It names the subject that the login may not publish to.
PUBLISH_VIOLATION = re.compile('permissions violation for publish to "(.+)"', re.IGNORECASE)


class Nats(Driver):
    """A NATS server or cluster, with one connection.

    Options are the arguments of nats.connect(). `tls` may also be True.
    """

    module, package = 'nats', 'netbox-webhooks[nats]'
    id_header = 'Nats-Msg-Id'

    def __init__(self, options: Mapping[str, Any]) -> None:
        from nats.aio.client import Client

        # The client does not reconnect by itself: `_connected` makes a new connection for the next message.
        self._options = {**options, 'allow_reconnect': False}
        if self._options.get('tls') is True:
            self._options['tls'] = ssl.create_default_context()
        signature(Client.connect).bind(None, **self._options)
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._background = Background('webhooks-nats')

    @classmethod
    def check_address(cls, address: str) -> None:
        """Raise ValueError unless the address is a subject that one can publish to."""
        if not SUBJECT.fullmatch(address):
            raise ValueError('a subject has names between dots, without spaces, * and >, and does not begin with $')
        if len(address.encode()) > MAX_SUBJECT_BYTES:
            raise ValueError(f'a subject has up to {MAX_SUBJECT_BYTES:,} bytes')

    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish the message, and return stream and sequence once the stream has acknowledged it.

        The message's id is its Nats-Msg-Id: a stream drops a repetition, and `duplicate` says so. Raises Away if
        there is no connection, if the stream is full or has no leader, or after `timeout` seconds, Lost if the
        connection ends, and Refused in all other cases, as if no stream takes the subject.
        """
        return self._background.run(self._publish(message, timeout), timeout)

    async def _publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        link = await self._connected()
        return await link.publish(message, timeout)

    async def _connected(self) -> '_Link':
        async with self._connecting:
            if self._link is None or not self._link.connection.is_connected:
                self._link = await self._connect()
            return self._link

    async def _connect(self) -> '_Link':
        """Return a new connection, to the first server that answers. Raises Refused for a wrong login, else Away."""
        from nats.errors import Error as NatsError

        servers = self._options.get('servers', DEFAULT_SERVER)
        servers = [servers] if isinstance(servers, str) else list(servers)
        if not self._options.get('dont_randomize'):
            random.shuffle(servers)
        reason, cause = 'there is no server', None
        # The client itself would try no other server after one that accepts connections and falls silent.
        for server in servers:
            link = _Link()
            try:
                await link.open({**self._options, 'servers': [server]})
            # A server that ends the connection at once has no error of its own.
            except (NatsError, OSError) as error:
                cause = link.trouble or error
                reason = str(cause) or 'the server does not answer'
            else:
                return link
        raise (Refused if LOGIN_REFUSED.search(reason) else Away)(f'no connection: {reason}') from cause

    def close(self) -> None:
        """Close the connection, and end the thread."""
        self._background.close(self._link.connection.close() if self._link else None)


class _Link:
    """One connection. An error that the server reports to it ends the waits of its own messages only."""

    def __init__(self) -> None:
        self.connection: Any = None
        # The last error that the client reported.
        self.trouble: Exception | None = None
        # By subject in lower case: futures that end the wait for an acknowledgement, once they get an exception.
        self._waiting: defaultdict[str, set[asyncio.Future]] = defaultdict(set)

    async def open(self, options: Mapping[str, Any]) -> None:
        """Connect. Raises the client's errors, and OSErrors."""
        from nats.aio.client import Client

        defaults = {
            'name': 'netbox-webhooks',
            'ping_interval': PING_INTERVAL_SECONDS,
            'max_outstanding_pings': MAX_OUTSTANDING_PINGS,
        }
        # A server that refuses connections is tried twice, as the client has no option to try once.
        own = {'error_cb': self._note, 'disconnected_cb': self._lose, 'closed_cb': self._lose}
        own |= {'max_reconnect_attempts': 1, 'reconnect_time_wait': 0}
        self.connection = Client()
        try:
            await self.connection.connect(**{**defaults, **options, **own})
        except BaseException:
            # The client leaves its socket open. While a server is silent, there would be one more each time.
            self._closing = asyncio.ensure_future(self.connection.close())
            raise

    async def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish the message, and return stream and sequence. Raises Away, Lost and Refused."""
        from nats.errors import ConnectionClosedError, ConnectionDrainingError, StaleConnectionError, UnexpectedEOF
        from nats.js.errors import APIError, NoStreamResponseError

        headers = {**message.headers, 'Nats-Msg-Id': message.id}
        # The server would end the connection, with all other messages under way.
        if len(message.body) + _size(headers) > self.connection.max_payload:
            raise Refused(f'the message is larger than {self.connection.max_payload} bytes')
        stream = self.connection.jetstream()
        acknowledged = stream.publish(message.address, message.body, timeout=timeout, headers=headers)
        try:
            answer = await self._unless_trouble(message.address, acknowledged)
        except (ConnectionClosedError, ConnectionDrainingError, StaleConnectionError, UnexpectedEOF) as error:
            raise Lost(f'the connection has ended: {error}') from error
        except NoStreamResponseError as error:
            raise await self._unanswered(message.address) from error
        except APIError as error:
            words = error.description or str(error)
            raise (Away if error.code == 503 or FULL_STREAM.search(words) else Refused)(words) from error
        shown = {'stream': answer.stream, 'sequence': answer.seq}
        return shown | ({'duplicate': True} if answer.duplicate else {})

    async def _unanswered(self, subject: str) -> Exception:
        """Return the error for a subject without an answer: Refused if no stream has it, else Away.

        In a cluster, nobody answers while a stream's servers choose a new leader.
        """
        from nats.errors import Error as NatsError
        from nats.js.errors import NotFoundError

        asked = self.connection.jetstream().find_stream_name_by_subject(subject)
        try:
            name = await self._unless_trouble(STREAM_NAMES, asked)
        # Refused: the login may not ask.
        except (NotFoundError, Refused):
            return Refused(f'no stream takes the subject {subject}')
        except NatsError as error:
            return Away(f'nobody answers for the subject {subject}, nor for JetStream: {error}')
        return Away(f'the stream {name} does not answer: it may have no leader')

    async def _unless_trouble(self, subject: str, work: Any) -> Any:
        """Return the result of `work`, or raise the error that the subject's wait gets meanwhile.

        NATS reports only to the connection that it may not publish, and a lost one reports nothing.
        """
        trouble, answer = asyncio.get_running_loop().create_future(), asyncio.ensure_future(work)
        subject = subject.lower()
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

    async def _note(self, error: Exception) -> None:
        """Called with the connection's errors: a missing permission ends the waits of its subject."""
        self.trouble = error
        if found := PUBLISH_VIOLATION.search(str(error)):
            # The client has turned the server's words into lower case. If a subject that differs in case only is
            # allowed, its acknowledgement ends its wait first.
            waits = list(self._waiting.get(found[1].lower(), ()))
            asyncio.get_running_loop().call_later(VIOLATION_SECONDS, _end, waits, Refused(str(error)))

    async def _lose(self) -> None:
        """Called when the connection ends: all its waits end."""
        for waits in list(self._waiting.values()):
            _end(list(waits), Lost('the connection was lost'))


def _end(waits: Iterable[asyncio.Future], error: Exception) -> None:
    """End the waits that have not ended yet with `error`."""
    for trouble in waits:
        if not trouble.done():
            trouble.set_exception(error)


def _size(headers: Mapping[str, str]) -> int:
    """Return the bytes of the headers, as the server counts them beside the body."""
    return len('\r\n'.join(('NATS/1.0', *(f'{name}: {value}' for name, value in headers.items()), '', '')).encode())
