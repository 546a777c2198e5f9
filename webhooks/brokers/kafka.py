"""Publishes to Kafka. The address is the topic, the key the message's key; partition and offset confirm a message."""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .driver import Away, Driver, Lost, Message, Refused

logger = logging.getLogger('webhooks.kafka')

# Kafka's rule for names of topics.
TOPIC = re.compile(r'[A-Za-z0-9._-]{1,249}')
# These win over the operator's options: with any others a confirmation does not mean that all in-sync replicas have
# the message, once and in order.
SAFE_OPTIONS = {'enable.idempotence': True, 'acks': 'all'}
# Milliseconds: the client tries a message by itself for half a minute, and does not wait for more to send together.
# A topic that is still unknown after two seconds is refused, before the webhook's timeout calls the cluster away.
DEFAULT_OPTIONS = {
    'delivery.timeout.ms': 30_000,
    'topic.metadata.propagation.max.ms': 2000,
    'linger.ms': 0,
    'client.id': 'netbox-webhooks',
}
# The two names that the client has for the cluster's servers.
SERVER_OPTIONS = ('bootstrap.servers', 'metadata.broker.list')
# The longest wait for what the cluster says about a topic.
METADATA_SECONDS = 2.0
# The longest wait for callbacks: a producer that died is noticed after this time.
POLL_SECONDS = 0.2
# A cluster that does not answer holds up the end of a process this long: once with its messages, once with the thread.
CLOSE_SECONDS = 2.0


class Kafka(Driver):
    """A Kafka cluster, with one idempotent producer at a time. Options are the settings of librdkafka's producer."""

    module, package = 'confluent_kafka', 'netbox-webhooks[kafka]'
    id_header = 'id'

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {**DEFAULT_OPTIONS, **options, **SAFE_OPTIONS}
        _check(self._options)
        self._opening = threading.Lock()
        self._line: _Line | None = None

    @classmethod
    def check_address(cls, address: str) -> None:
        """Raise ValueError unless the address is a topic's name."""
        if not TOPIC.fullmatch(address):
            raise ValueError('a topic has up to 249 letters, digits, ".", "_" and "-"')

    def publish(self, message: Message, timeout: float) -> Mapping[str, object]:
        """Publish the message, and return topic, partition and offset once all in-sync replicas have it.

        Raises Away after `timeout` seconds or if the cluster cannot take it now, and Lost if the producer died. Raises
        Refused if the message is wrong, or the login wrong or without the right.
        """
        line = self._open()
        answer = line.produce(message)
        try:
            if not answer.has_come.wait(timeout):
                raise line.late(timeout)
        finally:
            line.waiting.discard(answer)
        if answer.error is not None:
            raise answer.error
        line.forget_trouble()
        return {'topic': message.address, 'partition': answer.partition, 'offset': answer.offset}

    def _open(self) -> '_Line':
        with self._opening:
            if self._line is None or self._line.is_dead:
                self._line = _Line(self._options)
            return self._line

    def close(self) -> None:
        """Drop all messages that are not confirmed, and end the producer with its thread."""
        if self._line is not None:
            self._line.close()


class _Answer:
    """The broker's answer to one message. `judge` turns the client's errors into exceptions."""

    def __init__(self, judge: Callable[[Any], Exception]) -> None:
        self.has_come = threading.Event()
        self.error: Exception | None = None
        self._judge = judge
        self.partition = self.offset = -1

    def take(self, error: Any, message: Any) -> None:
        """Take it from the client's thread. It counts for the line even if no thread waits for it any more."""
        if error is not None:
            self.error = self._judge(error)
        else:
            self.partition, self.offset = message.partition(), message.offset()
        self.has_come.set()

    def lose(self, reason: Exception) -> None:
        """End the wait, as no answer will come any more."""
        self.error = self.error or reason
        self.has_come.set()


class _Line:
    """A producer and the thread of its callbacks. After a fatal error it is dead, as Kafka's idempotence asks."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from confluent_kafka import Producer

        self.is_dead = False
        self.waiting: set[_Answer] = set()
        # The client's last error of a connection.
        self._trouble: Any = None
        # librdkafka takes a number as text too.
        self._patience = int(options['delivery.timeout.ms']) / 1000
        self._producer = Producer({**options, 'error_cb': self._note}, logger=logger)
        self._thread = threading.Thread(target=self._poll, name='webhooks-kafka', daemon=True)
        self._thread.start()

    def produce(self, message: Message) -> _Answer:
        """Hand the message to the producer, and return the answer to wait for. Raises Away, Lost and Refused."""
        from confluent_kafka import KafkaException

        answer = _Answer(self.judged)
        self.waiting.add(answer)
        try:
            self._hand_over(message, answer)
        except BufferError as error:
            raise Away('too many messages wait in the client') from error
        except KafkaException as error:
            reason = self.judged(error.args[0])
            if self.is_dead:
                self._producer.purge()
            raise reason from error
        if self.is_dead:
            self._producer.purge()
            answer.lose(_started_anew())
        return answer

    def _hand_over(self, message: Message, answer: _Answer) -> None:
        """Hand the message to the producer. Raises KafkaException and BufferError.

        The producer remembers a topic that was unknown or forbidden for five minutes, and refuses it by itself. So it
        asks the cluster once more first.
        """
        from confluent_kafka import KafkaException

        headers = [(name, value.encode()) for name, value in {**message.headers, 'id': message.id}.items()]
        arguments = {'headers': headers, 'on_delivery': answer.take}
        try:
            self._producer.produce(message.address, message.body, message.key, **arguments)
        except KafkaException as error:
            if error.args[0].code() not in _remembered():
                raise
            self._producer.list_topics(message.address, METADATA_SECONDS)
            self._producer.produce(message.address, message.body, message.key, **arguments)

    def _poll(self) -> None:
        from confluent_kafka import KafkaException

        reason = _started_anew()
        try:
            while not self.is_dead:
                self._producer.poll(POLL_SECONDS)
        except KafkaException as error:
            logger.exception('producer=fatal error')
            reason = self.judged(error.args[0])
        self.is_dead = True
        # What it still held would land after newer messages of the next line. In a callback, purge() would crash.
        self._producer.purge()
        for answer in list(self.waiting):
            answer.lose(reason)

    def _note(self, error: Any) -> None:
        self._trouble = error

    def forget_trouble(self) -> None:
        """Forget the last trouble, as a message was confirmed since."""
        self._trouble = None

    def late(self, timeout: float) -> Exception:
        """Return the error for a message without an answer in time: Refused after a failed login, else Away."""
        from confluent_kafka import KafkaError

        trouble = self._trouble
        if trouble is not None and trouble.code() in (
            KafkaError._AUTHENTICATION,
            KafkaError.SASL_AUTHENTICATION_FAILED,
        ):
            return Refused(trouble.str())
        return Away(f'no confirmation within {timeout:g} seconds' + (f': {trouble.str()}' if trouble else ''))

    def judged(self, error: Any) -> Exception:
        """Return what the client's error means. After some of them the line is dead."""
        from confluent_kafka import KafkaError

        if error.fatal():
            self.is_dead = True
            # The login may not use an idempotent producer at all. Another producer would hear the same.
            is_refused = error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED
            return (Refused if is_refused else Lost)(error.str())
        if error.code() == KafkaError._MSG_TIMED_OUT:
            # The cluster may have been replaced. Then this producer would count on from the old cluster's numbers for
            # ever. So a new one begins.
            self.is_dead = True
            return self.late(self._patience)
        return (Away if error.retriable() or error.code() in _away() else Refused)(error.str())

    def close(self) -> None:
        """Drop all messages that are not confirmed, and end the thread."""
        if not self.is_dead:
            self._producer.purge()
            self._producer.flush(CLOSE_SECONDS)
        self.is_dead = True
        self._thread.join(CLOSE_SECONDS)


def _check(options: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for an option that the client does not take.

    Only a producer knows. It gets no servers, so it connects nowhere, and no functions: one may fetch a token, and all
    brokers would wait for it.
    """
    from confluent_kafka import KafkaException, Producer

    try:
        Producer(
            {name: value for name, value in options.items() if name not in SERVER_OPTIONS and not callable(value)},
            logger=logger,
        )
    except KafkaException as error:
        raise ValueError(error.args[0].str()) from error


def _started_anew() -> Exception:
    return Lost('the client cannot go on, and is started anew')


def _remembered() -> tuple[int, ...]:
    from confluent_kafka import KafkaError

    return (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)


def _away() -> tuple[int, ...]:
    from confluent_kafka import KafkaError

    return (
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    )
