"""TLS with an authority of one's own, and client certificates: who is not trusted gets and brings no message."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.brokers import PATIENT, READERS, Reader, options_of, sending
from support.kafka_door import Door
from support.settings import change_settings

from devstack.brokers import PASSWORD, USER, Broker, Certificates
from devstack.ports import LOOPBACK
from webhooks.transport.exchange import Outcome

# Seconds until a broker that lets nobody in is given up.
SHORT = 10.0
# These take an ssl.SSLContext, or True.
WITH_CONTEXT = ('amqp', 'mqtt', 'nats')


@pytest.fixture(scope='session')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that servers of other users may read."""
    made = tmp_path_factory.mktemp('certificates')
    for one in (made, *made.parents[:2]):
        one.chmod(0o755)
    return made


def issue(folder: Path, name: str, authority: trustme.CA, until: datetime | None = None) -> Certificates:
    """Write a certificate for both sides."""
    paths = [folder / f'{name}-{part}.pem' for part in ('authority', 'certificate', 'key')]
    issued = authority.issue_cert(LOOPBACK, 'broker.example.com', not_after=until)
    authority.cert_pem.write_to_path(str(paths[0]))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(paths[1]), append=True)
    issued.private_key_pem.write_to_path(str(paths[2]))
    for path in paths:
        path.chmod(0o644)
    return Certificates(*paths)


@pytest.fixture(scope='session')
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope='session')
def trusted(folder: Path, authority: trustme.CA) -> Certificates:
    return issue(folder, 'trusted', authority)


@pytest.fixture(scope='session')
def stranger(folder: Path) -> Certificates:
    """Of another authority."""
    return issue(folder, 'stranger', trustme.CA())


@pytest.fixture(scope='session')
def start_with_tls(start_broker: Callable[..., Broker], trusted: Certificates) -> Iterator[Callable[..., Reader]]:
    """Start a broker that shows our certificate: `start_with_tls('nats', asks_clients=True)`. Each is started once."""
    started: dict[tuple[str, bool], Reader] = {}
    doors: list[Door] = []

    def start(driver: str, asks_clients: bool) -> Reader:
        if (driver, asks_clients) not in started:
            fields = {'tls': trusted, 'asks_clients': asks_clients}
            if driver == 'kafka':
                doors.append(Door(tls=server_context(trusted, asks_clients)))
                fields['shown_port'] = doors[-1].port
            broker = start_broker(driver, **fields)
            if driver == 'kafka':
                doors[-1].target = broker.port
            reader = started[driver, asks_clients] = READERS[driver](broker)
            reader.prepare()
        return started[driver, asks_clients]

    yield start
    for reader in started.values():
        reader.close()
    for door in doors:
        door.close()


def server_context(tls: Certificates, asks_clients: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.authority)
    context.load_cert_chain(tls.certificate, tls.key)
    context.verify_mode = ssl.CERT_REQUIRED if asks_clients else ssl.CERT_NONE
    return context


def published(
    reader: Reader,
    tls: Certificates | None,
    monkeypatch: pytest.MonkeyPatch,
    host: str = LOOPBACK,
    timeout: float = SHORT,
) -> Outcome:
    """Publish a message to `host` as a client with these certificates, or without one of its own."""
    broker = replace(reader.broker, tls=tls or reader.broker.tls)
    options = options_of(broker)
    if tls is None:
        if broker.driver in WITH_CONTEXT:
            options['tls'] = ssl.create_default_context(cafile=broker.tls.authority)
        own = ('ssl.certificate.location', 'ssl.key.location', 'ssl_certfile', 'ssl_keyfile')
        options = {name: value for name, value in options.items() if name not in own}
    change_settings(monkeypatch, brokers={'bus': {name: _moved(value, host) for name, value in options.items()}})
    with sending(reader) as send:
        return send(timeout=timeout)


def _moved(value: Any, host: str) -> Any:
    if isinstance(value, list):
        return [_moved(one, host) for one in value]
    return value.replace(LOOPBACK, host) if isinstance(value, str) else value


@pytest.fixture
def reader(driver: str, start_with_tls: Callable[..., Reader]) -> Reader:
    return start_with_tls(driver, asks_clients=True)


@pytest.fixture
def before(reader: Reader) -> int:
    return len(reader.read())


def test_a_message_arrives_by_an_own_authority_and_a_client_certificate(reader, before, trusted, monkeypatch):
    assert published(reader, trusted, monkeypatch, timeout=PATIENT).error == ''
    assert len(reader.wait_for(before + 1)) == before + 1


def test_a_server_of_an_unknown_authority_gets_no_message(reader, before, trusted, stranger, monkeypatch):
    outcome = published(reader, replace(trusted, authority=stranger.authority), monkeypatch)
    assert outcome.unreachable
    assert 'certificate' in outcome.error
    assert len(reader.read()) == before


def test_a_server_whose_certificate_is_for_another_name_gets_no_message(reader, before, trusted, monkeypatch):
    outcome = published(reader, trusted, monkeypatch, host='localhost')
    assert outcome.unreachable
    assert 'certificate' in outcome.error
    assert len(reader.read()) == before


def test_a_client_without_its_certificate_is_not_let_in(reader, before, monkeypatch):
    outcome = published(reader, None, monkeypatch)
    assert outcome.unreachable
    assert outcome.error
    assert len(reader.read()) == before


def test_a_client_with_the_certificate_of_another_authority_is_not_let_in(
    reader, before, trusted, stranger, monkeypatch
):
    outcome = published(reader, replace(stranger, authority=trusted.authority), monkeypatch)
    assert outcome.unreachable
    assert outcome.error
    assert len(reader.read()) == before


def test_an_expired_client_certificate_is_a_broker_that_is_away(reader, before, authority, folder, monkeypatch):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    outcome = published(reader, issue(folder, f'expired-{reader.broker.driver}', authority, yesterday), monkeypatch)
    assert outcome.unreachable
    assert len(reader.read()) == before


@pytest.mark.parametrize('driver', WITH_CONTEXT)
def test_tls_may_be_true_where_the_machine_trusts_the_authority(driver, start_with_tls, trusted, stranger, monkeypatch):
    reader = start_with_tls(driver, asks_clients=False)
    change_settings(monkeypatch, brokers={'bus': reader.broker.options | {'tls': True}})
    for known, is_trusted in ((stranger, False), (trusted, True)):
        monkeypatch.setenv('SSL_CERT_FILE', str(known.authority))
        with sending(reader) as send:
            outcome = send(timeout=PATIENT if is_trusted else SHORT)
        assert outcome.succeeded == is_trusted, outcome.error
        assert outcome.unreachable != is_trusted


@pytest.mark.parametrize(('scheme', 'has_context'), [('amqp', True), ('amqps', True), ('amqps', False)])
def test_a_url_of_rabbitmq_keeps_its_port_with_tls(scheme, has_context, start_with_tls, trusted, monkeypatch):
    reader = start_with_tls('amqp', asks_clients=False)
    options = {'driver': 'amqp', 'url': f'{scheme}://{USER}:{PASSWORD}@{LOOPBACK}:{reader.broker.port}/%2F'}
    if has_context:
        options['tls'] = ssl.create_default_context(cafile=trusted.authority)
    monkeypatch.setenv('SSL_CERT_FILE', str(trusted.authority))
    change_settings(monkeypatch, brokers={'bus': options})
    with sending(reader) as send:
        assert send().error == ''
