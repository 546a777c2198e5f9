from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.brokers import READERS, Reader, Relay, options_of
from support.settings import change_settings

from devstack.brokers import BROKERS, Broker
from devstack.process import Processes


@pytest.fixture(scope='session')
def start_broker(stack: Any, processes: Processes) -> Iterator[Callable[..., Broker]]:
    """Start another broker: `start_broker('nats')`, with `tls`, or where others are sent by `shown_port`."""
    started: list[Broker] = []

    def start(driver: str, **fields: Any) -> Broker:
        broker = BROKERS[driver](stack.folder / f'{driver}-{len(started)}', processes, **fields)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture(params=sorted(BROKERS))
def driver(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='session')
def shared(start_broker: Callable[..., Broker]) -> Callable[[str], tuple[Reader, Relay]]:
    """One broker of each kind, behind a relay, for tests that leave it as it was."""
    made: dict[str, tuple[Reader, Relay]] = {}

    def get(driver: str) -> tuple[Reader, Relay]:
        if driver not in made:
            relay = Relay(0)
            broker = start_broker(driver, shown_port=relay.port)
            relay.target = broker.port
            reader = READERS[driver](broker)
            reader.prepare()
            made[driver] = reader, relay
        return made[driver]

    return get


@pytest.fixture
def relay(driver: str, shared: Callable[[str], tuple[Reader, Relay]]) -> Iterator[Relay]:
    relay = shared(driver)[1]
    yield relay
    relay.hangs = relay.resets = False
    relay.delay = 0.0


@pytest.fixture
def reader(driver: str, shared: Callable[[str], tuple[Reader, Relay]], relay: Relay) -> Reader:
    return shared(driver)[0]


@pytest.fixture
def bus(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """The broker, which the settings name `bus`."""
    change_settings(monkeypatch, brokers={'bus': options_of(reader.broker)})
    return reader.broker
