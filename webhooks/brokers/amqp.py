"""Publishes to AMQP 0.9.1 (RabbitMQ). The address is exchange/routing key; the broker's ack confirms a message."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .background import Background
from .driver import Away, Driver, Lost, Message, Refused

# A durable queue keeps the message over a restart of the broker.
PERSISTENT_DELIVERY_MODE = 2


class Amqp(Driver):
    """A RabbitMQ broker, with one connection, and one channel for each exchange.

    Options are the arguments of pika.ConnectionParameters or a `url`, and `username`, `password`, `tls` (an
    ssl.SSLContext or True).
    """

    module, package = 'pika', 'netbox-webhooks[amqp]'
    key_header = 'key'

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._parameters = _parameters(dict(options))
        self._connection: Any = None
        # By exchange. A broker closes the channel of a wrong message, with all messages under way on it. So only
        # messages of the same exchange have to be sent again.
        self._channels: dict[str, _Channel] = {}
        self._opening = asyncio.Lock()
        self._background = Background('webhooks-amqp')

    @classmethod
    def check_address(cls, address: str) -> None:
        """Raise ValueError unless the address is exchange/routing key, of 255 bytes each, or /queue."""
        exchange, slash, key = address.partition('/')
        if not slash or not (exchange or key) or max(len(exchange.encode()), len(key.encode())) > 255:
            raise ValueError('write exchange/routing key, of 255 bytes each, or /queue')

    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish a persistent message, and return exchange, routing key and delivery tag once it is acknowledged.

        Raises Away after `timeout` seconds or if a queue is full, and Lost if the connection ends. Raises Refused if no
        queue takes the message, or the exchange is missing or forbidden.
        """
        from pika.exceptions import ChannelWrongStateError, ConnectionWrongStateError

        try:
            return self._background.run(self._publish(message), timeout)
        except (ChannelWrongStateError, ConnectionWrongStateError) as error:
            # It ended while another message was opening a channel.
            raise Lost('the connection was lost') from error

    async def _publish(self, message: Message) -> Mapping[str, object]:
        exchange, _slash, key = message.address.partition('/')
        channel = await self._channel(exchange)
        try:
            tag = await channel.publish(exchange, key, message)
        except _OneIsWrong:
            # Alone on a channel, a wrong message is known from those that were beside it.
            channel = await _Channel.open(await self._connected())
            try:
                tag = await channel.publish(exchange, key, message)
            finally:
                channel.close()
        return {'exchange': exchange, 'routing_key': key, 'delivery_tag': tag}

    async def _channel(self, exchange: str) -> '_Channel':
        connection = await self._connected()
        async with self._opening:
            channel = self._channels.get(exchange)
            if channel is None or not channel.is_open:
                channel = self._channels[exchange] = await _Channel.open(connection)
            return channel

    async def _connected(self) -> Any:
        async with self._opening:
            if self._connection is None or not self._connection.is_open:
                self._channels.clear()
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Any:
        from pika.adapters.asyncio_connection import AsyncioConnection

        opened = asyncio.get_running_loop().create_future()
        connection = AsyncioConnection(
            self._parameters,
            on_open_callback=lambda connection: _resolve(opened, connection),
            on_open_error_callback=lambda _connection, error: _resolve(opened, _unopened(error)),
        )
        try:
            return await opened
        except asyncio.CancelledError:
            if not connection.is_closed and not connection.is_closing:
                connection.close()
            raise

    def close(self) -> None:
        """Close the connection, and end the thread. Takes some seconds if the broker does not answer."""
        self._background.close(self._goodbye())

    async def _goodbye(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            while not self._connection.is_closed:
                await asyncio.sleep(0.01)


class _OneIsWrong(Lost):
    """The broker closed a channel because of one of several messages. It does not say which one."""


class _Channel:
    """A channel that confirms: the broker answers each message by its number on the channel."""

    def __init__(self, connection: Any) -> None:
        self._last = 0
        # Message ids and waits by number, until the broker answers. It may answer after the wait was given up.
        self._waiting: dict[int, tuple[str, asyncio.Future]] = {}
        # Reasons by message id. If no queue takes a message, the broker returns it, and then acknowledges it too.
        self._returned: dict[str, str] = {}
        self._is_ready = asyncio.get_running_loop().create_future()
        self._channel = connection.channel(on_open_callback=self._confirm)
        self._channel.add_on_close_callback(self._lose)

    @classmethod
    async def open(cls, connection: Any) -> '_Channel':
        """Return a channel after the broker has agreed to confirm. Raises Refused or Lost if it closes the channel."""
        channel = cls(connection)
        try:
            await channel._is_ready
        except asyncio.CancelledError:
            # The timeout has come. A channel that nobody knows would stay on the connection.
            if not (channel._channel.is_closing or channel._channel.is_closed):
                channel._channel.close()
            raise
        return channel

    @property
    def is_open(self) -> bool:
        return self._channel.is_open

    async def publish(self, exchange: str, key: str, message: Message) -> int:
        """Return the message's number on the channel, after the broker has acknowledged it.

        Raises Refused if the broker returned it unrouted or if it cannot be sent, Away if it was rejected, and the
        errors of `_lose`.
        """
        from pika.exceptions import ShortStringTooLong

        try:
            self._channel.basic_publish(exchange, key, message.body, _properties(message), mandatory=True)
        except ShortStringTooLong as error:
            raise Refused('the name of a header or the content type is longer than 255 bytes') from error
        # The broker counts what it gets. Were a message counted that was not sent, each later one would get the answer
        # of another.
        self._last += 1
        answer = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = message.id, answer
        return await answer

    def close(self) -> None:
        """Close the channel, unless the broker has done so."""
        if self.is_open:
            self._channel.close()

    def _confirm(self, channel: Any) -> None:
        channel.add_on_return_callback(self._note_return)
        channel.confirm_delivery(self._note, callback=lambda _frame: _resolve(self._is_ready, True))

    def _lose(self, _channel: Any, error: Any) -> None:
        """Fail all that waits: the broker has closed the channel. Its reply says whether a message was wrong.

        That is one for an exchange that is missing (404), or forbidden (403), or that does not fit it (406).
        """
        reason: Exception = Lost(f'the channel was closed: {_words(error)}')
        if getattr(error, 'reply_code', 0) in (403, 404, 406):
            reason = (_OneIsWrong if len(self._waiting) > 1 else Refused)(_words(error))
        _resolve(self._is_ready, reason)
        for _id, answer in self._waiting.values():
            _resolve(answer, reason)

    def _note_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        self._returned[properties.message_id] = f'{method.reply_code} {method.reply_text}'

    def _note(self, frame: Any) -> None:
        from pika.spec import Basic

        method, last = frame.method, frame.method.delivery_tag
        numbers = [number for number in self._waiting if number == last or (method.multiple and number < last)]
        answered = {number: self._waiting.pop(number) for number in numbers}
        returned = {id: self._returned.get(id, '') for id, _answer in answered.values()}
        # A message that was given up may have been published again: then the broker answers for its id once more.
        for id in returned.keys() - {id for id, _answer in self._waiting.values()}:
            self._returned.pop(id, None)
        for number, (id, answer) in answered.items():
            if returned[id]:
                _resolve(answer, Refused(returned[id]))
            elif isinstance(method, Basic.Ack):
                _resolve(answer, number)
            else:
                _resolve(answer, Away('a queue is full, or cannot take the message'))


def _resolve(future: asyncio.Future, result: Any) -> None:
    """Give the future its result or its exception, unless it has one."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _unopened(error: Any) -> Exception:
    """Return the error of a connection that did not open: Refused for a wrong login, else Away."""
    from pika.exceptions import AuthenticationError, ProbableAccessDeniedError, ProbableAuthenticationError

    refusals = (AuthenticationError, ProbableAuthenticationError, ProbableAccessDeniedError)
    return (Refused if isinstance(error, refusals) else Away)(f'no connection: {_words(error)}')


def _words(error: Any) -> str:
    """Return the broker's words for an error. pika wraps some errors in others: then the last inner one has them."""
    code, text = getattr(error, 'reply_code', None), getattr(error, 'reply_text', None)
    if code is not None:
        return f'{code} {text}'
    wrapped = (*error.args, getattr(error, 'exception', None), *getattr(error, 'exceptions', ()))
    inner = [one for one in wrapped if isinstance(one, BaseException)]
    return _words(inner[-1]) if inner else f'{type(error).__name__}: {error}'


def _parameters(options: dict[str, Any]) -> Any:
    import pika

    username, password, tls = (options.pop(name, None) for name in ('username', 'password', 'tls'))
    has_port = 'port' in options
    if 'url' in options:
        url = options.pop('url')
        has_port = has_port or urlsplit(url).port is not None
        parameters = pika.URLParameters(url)
        for name, value in options.items():
            setattr(parameters, name, value)
    else:
        parameters = pika.ConnectionParameters(**options)
    if username is not None:
        parameters.credentials = pika.PlainCredentials(username, password or '')
    if tls:
        context = tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context()
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
        if not has_port:
            parameters.port = parameters.DEFAULT_SSL_PORT
    return parameters


def _properties(message: Message) -> Any:
    import pika

    return pika.BasicProperties(
        content_type=message.headers.get('content-type'),
        headers={**message.headers, 'key': message.key},
        message_id=message.id,
        delivery_mode=PERSISTENT_DELIVERY_MODE,
    )
