"""Publishes to MQTT 5. The address is the topic; the broker's reason code confirms a message, by QoS 1."""

import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any

from .driver import Away, Driver, Lost, Message, Refused

# Without the option `port`.
PLAIN_PORT = 1883
TLS_PORT = 8883
# While one message makes the connection, other webhooks wait for it. So a silent broker is given up after this time,
# however long the message may wait.
CONNECT_SECONDS = 10.0
# With these (MQTT 5.0, 2.4) the broker is busy, shuts down, or has reached a limit. So the message comes again later.
BUSY_REASON_CODES = frozenset({0x88, 0x89, 0x8B, 0x93, 0x96, 0x97})
# The protocol's own limit. A broker may name a lower one.
MAX_MESSAGE_BYTES = 268_435_455
# Room for a packet's header, lengths and number, which this driver does not count exactly.
HEADER_MARGIN_BYTES = 16
# At least once. With 0 a broker confirms nothing. With 2 nobody would see that the broker refused a message: the client
# drops the reason code of PUBREC.
QOS = 1
# Any other option is a mistake of the operator.
OPTION_NAMES = frozenset({'host', 'port', 'username', 'password', 'tls', 'keepalive', 'transport'})


class Mqtt(Driver):
    """An MQTT broker, with one connection.

    Options: `host`, `port`, `username`, `password`, `keepalive` (seconds), `transport`, and `tls` (an ssl.SSLContext or
    True).
    """

    module, package = 'paho.mqtt', 'netbox-webhooks[mqtt]'
    id_header, key_header = 'id', 'key'

    def __init__(self, options: Mapping[str, Any]) -> None:
        if unknown := sorted(set(options) - OPTION_NAMES):
            raise ValueError(f'there is no option {unknown[0]}')
        if 'host' not in options:
            raise ValueError('host is missing')
        self._options = dict(options)
        self._opening = threading.Lock()
        self._link: _Link | None = None

    @classmethod
    def check_address(cls, address: str) -> None:
        """Raise ValueError unless the address is a topic that one can publish to."""
        super().check_address(address)
        if any(letter in address for letter in '+#\x00') or address.startswith('$') or len(address.encode()) > 65_535:
            raise ValueError('a topic has no + and #, and does not begin with $')

    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish the message, and return topic and the broker's reason code once it has confirmed.

        Raises Away after `timeout` seconds or if the broker is busy, Lost if the connection ends, and Refused
        otherwise.
        """
        end = time.monotonic() + timeout
        link = self._open(end)
        reason = link.publish(message, end - time.monotonic(), timeout)
        return {'topic': message.address, 'reason': str(reason)}

    def _open(self, end: float) -> '_Link':
        if not self._opening.acquire(timeout=max(end - time.monotonic(), 0)):
            raise Away('no connection: another message still waits for it')
        try:
            if self._link is None or self._link.is_lost.is_set():
                if self._link:
                    self._link.close()
                self._link = None
                self._link = _Link(self._options, min(end - time.monotonic(), CONNECT_SECONDS))
            return self._link
        finally:
            self._opening.release()

    def close(self) -> None:
        """Disconnect, and end the client's thread."""
        if self._link:
            self._link.close()


class _Link:
    """One connection. After it is lost it publishes nothing more: a repetition could overtake later messages."""

    def __init__(self, options: Mapping[str, Any], timeout: float) -> None:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        self.is_lost = threading.Event()
        self._changed = threading.Condition()
        self._code: Any = None
        # Bytes. If a message is larger, the broker ends the connection, with all other messages under way.
        self._largest = MAX_MESSAGE_BYTES
        # Reason codes, by the client's number of a message. An answer to a message that was given up is dropped.
        self._answers: dict[int, Any] = {}
        self._given_up: set[int] = set()
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTv5,
            transport=options.get('transport', 'tcp'),
            reconnect_on_failure=False,
        )
        if 'username' in options:
            client.username_pw_set(options['username'], options.get('password'))
        tls = options.get('tls')
        if tls:
            client.tls_set_context(tls if isinstance(tls, ssl.SSLContext) else ssl.create_default_context())
        client.on_connect, client.on_disconnect, client.on_publish = self._connected, self._disconnected, self._taken
        client.connect_timeout = max(timeout, 0.1)
        try:
            self._connect(options, TLS_PORT if tls else PLAIN_PORT, timeout)
        except BaseException:
            self.close()
            raise

    def _connect(self, options: Mapping[str, Any], port: int, timeout: float) -> None:
        """Wait for the broker's welcome. Raises Away, or Refused for a wrong login."""
        end = time.monotonic() + timeout
        self._client.connect(options['host'], options.get('port', port), options.get('keepalive', 60))
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._code is not None or self.is_lost.is_set(), end - time.monotonic())
        if self._code is None:
            raise Away('the broker does not answer')
        if self._code.is_failure:
            raise (Away if self._code.value in BUSY_REASON_CODES else Refused)(f'no connection: {self._code}')

    def publish(self, message: Message, patience: float, timeout: float) -> Any:
        """Publish the message, and return the broker's reason code. Raises Away, Lost and Refused.

        `patience` is the seconds that are left. `timeout` is all of them, for the error's text.
        """
        from paho.mqtt.client import MQTT_ERR_SUCCESS

        properties = _properties(message)
        if len(message.body) + len(message.address) + len(properties.pack()) + HEADER_MARGIN_BYTES > self._largest:
            raise Refused(f'the message is larger than {self._largest} bytes')
        # The client's thread takes our lock inside locks of its own. If this call held ours, both could wait for ever.
        info = self._client.publish(message.address, message.body, QOS, properties=properties)
        if info.rc != MQTT_ERR_SUCCESS:
            self.is_lost.set()
            raise Lost('the connection was lost')
        with self._changed:
            self._changed.wait_for(lambda: info.mid in self._answers or self.is_lost.is_set(), patience)
            answer = self._answers.pop(info.mid, None)
            if answer is None:
                self._given_up.add(info.mid)
        if answer is None and self.is_lost.is_set():
            raise Lost('the connection was lost')
        if answer is None:
            raise Away(f'no confirmation within {timeout:g} seconds')
        if answer.is_failure:
            raise (Away if answer.value in BUSY_REASON_CODES else Refused)(str(answer))
        return answer

    def close(self) -> None:
        """Disconnect, and end the client's thread. Waits for an answer end with Lost."""
        self.is_lost.set()
        self._client.disconnect()
        self._client.loop_stop()

    # The client's thread calls the rest.

    def _connected(self, _client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        with self._changed:
            self._largest = getattr(properties, 'MaximumPacketSize', MAX_MESSAGE_BYTES)
            self._code = code
            self._changed.notify_all()

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, _code: Any, _properties: Any) -> None:
        with self._changed:
            self.is_lost.set()
            self._changed.notify_all()

    def _taken(self, _client: Any, _data: Any, number: int, code: Any, _properties: Any) -> None:
        with self._changed:
            if number in self._given_up:
                self._given_up.discard(number)
                return
            self._answers[number] = code
            self._changed.notify_all()


def _properties(message: Message) -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = message.headers.get('content-type', '')
    properties.UserProperty = [*message.headers.items(), ('key', message.key), ('id', message.id)]
    return properties
