"""What a broker's errors tell people: its name in the settings and the reason, and no address."""

import logging
from typing import Any

import pytest
from support.settings import change_settings

from devstack.ports import free_port
from webhooks.brokers.address import Place
from webhooks.brokers.registry import Broker
from webhooks.transport.exchange import Outcome, Request
from webhooks.transport.publishing import Publisher

OPTIONS = {
    'bootstrap.servers': 'kafka1.example.com:9093,kafka2',
    'servers': ['nats://netbox:p4ssw0rd@nats.example.com:4222'],
    'sasl.mechanisms': 'PLAIN',
    'sasl.username': 'netbox-producer',
    'virtual_host': 'production',
}
ERRORS = {
    'Error 111 connecting to 10.1.2.3:6379. Connection refused.': 'Error 111 connecting to bus. Connection refused.',
    "no connection: [Errno 111] Connect call failed ('10.1.2.3', 4222)": (
        'no connection: [Errno 111] Connect call failed bus'
    ),
    "Connect call failed ('fd00::17', 4222, 0, 0)": 'Connect call failed bus',
    'sasl_ssl://kafka1.example.com:9093/bootstrap: Connect to ipv4#10.1.2.3:9093 failed: Connection refused': (
        'bus: Connect to bus failed: Connection refused'
    ),
    'Connect to ipv6#[fd00::17]:9093 failed': 'Connect to bus failed',
    'kafka3.internal:9093/3: unknown': 'bus: unknown',
    "certificate is not valid for 'nats.example.com'.": "certificate is not valid for 'bus'.",
    'host kafka2 is unknown': 'host bus is unknown',
    'no stream takes the subject netbox.kafka2.sites': 'no stream takes the subject netbox.kafka2.sites',
    'SASL PLAIN mechanism handshake failed': 'SASL PLAIN mechanism handshake failed',
    'no route to fd00::17, ::1 or 2001:db8:0:1:0:0:0:5.': 'no route to bus, bus or bus',
    # OpenSSL writes two colons, and "::ce" could be an address.
    'error:0A000086:SSL routines::certificate verify failed': 'error:0A000086:SSL routines::certificate verify failed',
    'APIError: code=503 err_code=10077 after 3.5 seconds': 'APIError: code=503 err_code=10077 after 3.5 seconds',
}


@pytest.mark.parametrize('error', ERRORS)
def test_the_name_stands_in_place_of_each_address(error: str):
    assert Broker('bus', 'kafka', OPTIONS).hide_addresses(error) == ERRORS[error]


def test_login_and_virtual_host_are_secret_and_the_mechanism_is_not():
    secrets = Broker('bus', 'kafka', OPTIONS).secrets
    assert {'netbox', 'p4ssw0rd', 'netbox-producer', 'production'} <= set(secrets)
    assert 'PLAIN' not in secrets
    beside = {'url': 'amqp://rabbit.example.com/production', 'username': 'netbox'}
    assert {'netbox', 'production'} <= set(Broker('bus', 'amqp', beside).secrets)


CLIENTS: dict[str, Any] = {
    'nats': lambda port: {'servers': [f'nats://127.0.0.1:{port}']},
    'kafka': lambda port: {'bootstrap.servers': f'127.0.0.1:{port}'},
    'amqp': lambda port: {'host': '127.0.0.1', 'port': port},
    'mqtt': lambda port: {'host': '127.0.0.1', 'port': port},
    'redis': lambda port: {'host': '127.0.0.1', 'port': port},
}


def published(driver: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Outcome:
    change_settings(monkeypatch, brokers={'bus': {'driver': driver, **options}})
    publisher = Publisher()
    try:
        request = Request(method='PUBLISH', url=f'{driver}://bus/a', headers={}, body=b'{}', timeout=3, id='an-id')
        return publisher.send(request, Place(driver, 'bus', 'a/b' if driver == 'amqp' else 'a'))
    finally:
        publisher.close()


@pytest.mark.parametrize('driver', CLIENTS)
def test_no_error_shows_the_address_of_a_broker_that_is_away(driver: str, monkeypatch, caplog):
    port = free_port()
    with caplog.at_level(logging.INFO, 'webhooks'):
        outcome = published(driver, CLIENTS[driver](port), monkeypatch)
    assert outcome.error and outcome.unreachable
    assert '127.0.0.1' not in outcome.error and str(port) not in outcome.error
    if driver in ('nats', 'redis'):
        # Operators read it in the log.
        assert f'{port}' in caplog.text and 'delivery=an-id broker=bus' in caplog.text
