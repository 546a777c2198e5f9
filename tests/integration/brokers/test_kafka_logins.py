"""Logins at Kafka: by PLAIN at a door before a server without logins, and by SCRAM at a server that knows no user."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.brokers import KafkaReader, sending
from support.kafka_door import Door
from support.settings import change_settings

from devstack.brokers import PASSWORD, USER, Tansu
from devstack.process import Processes

# Seconds: so long a message without a connection waits for its confirmation.
# Seconds in which a busy machine logs in, and in which nobody answers.
ENOUGH, SHORT = 15.0, 3.0
LOGIN = {'security.protocol': 'sasl_plaintext', 'sasl.username': USER, 'sasl.password': PASSWORD}


class BehindDoor(Tansu):
    """Its clients are sent to the door, which asks for a login."""

    @property
    def options(self) -> dict[str, Any]:
        return super().options | LOGIN | {'sasl.mechanisms': 'PLAIN'}


class WithoutUsers(Tansu):
    """It asks for a login by SCRAM. Nobody can log in to tell it of users."""

    @property
    def options(self) -> dict[str, Any]:
        return super().options | LOGIN | {'sasl.mechanisms': 'SCRAM-SHA-256'}

    def _command(self) -> list[str]:
        return [*super()._command(), '--authentication']


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door(logins={USER: PASSWORD})
    yield made
    made.close()


@pytest.fixture
def reader(door: Door, stack: Any, processes: Processes) -> Iterator[KafkaReader]:
    broker = BehindDoor(stack.folder / f'kafka-{door.port}', processes, shown_port=door.port)
    broker.start()
    door.target = broker.port
    made = KafkaReader(broker)
    made.prepare()
    yield made
    broker.stop()


def test_a_message_arrives_by_user_and_password(reader, monkeypatch):
    change_settings(monkeypatch, brokers={'bus': reader.broker.options})
    with sending(reader) as send:
        assert send().error == ''
    assert len(reader.wait_for(1)) == 1


@pytest.mark.parametrize(
    ('option', 'wrong'),
    [
        ('sasl.password', f'{PASSWORD}-no-more'),
        ('sasl.username', 'nobody'),
        ('sasl.mechanisms', 'SCRAM-SHA-256'),
    ],
)
def test_a_wrong_login_is_a_failure_that_shows_no_secret(reader, monkeypatch, option, wrong):
    change_settings(monkeypatch, brokers={'bus': reader.broker.options | {option: wrong}})
    with sending(reader) as send:
        outcome = send(timeout=ENOUGH)
    assert outcome.error
    assert not outcome.unreachable, outcome.error
    assert PASSWORD not in outcome.error


def test_a_login_that_is_taken_away_is_refused_until_it_is_back(reader, door, monkeypatch):
    change_settings(monkeypatch, brokers={'bus': reader.broker.options})
    with sending(reader) as send:
        assert send().error == ''
        door.logins = {}
        door.cut()
        outcome = send(timeout=ENOUGH)
        assert 'Invalid username or password' in outcome.error
        assert not outcome.unreachable
        door.logins = {USER: PASSWORD}
        assert send().error == ''


def test_a_client_without_login_is_away(reader, monkeypatch):
    """The server ends the connection without a word."""
    plain = {name: value for name, value in reader.broker.options.items() if name not in (*LOGIN, 'sasl.mechanisms')}
    change_settings(monkeypatch, brokers={'bus': plain})
    with sending(reader) as send:
        assert send(timeout=SHORT).unreachable


def test_a_user_that_the_server_does_not_know_is_refused_in_its_words(stack, processes: Processes, monkeypatch):
    broker = WithoutUsers(stack.folder / 'kafka-without-users', processes)
    broker.start()
    change_settings(monkeypatch, brokers={'bus': broker.options})
    with sending(KafkaReader(broker)) as send:
        outcome = send(timeout=ENOUGH)
    broker.stop()
    assert 'unknown-user' in outcome.error
    assert not outcome.unreachable
