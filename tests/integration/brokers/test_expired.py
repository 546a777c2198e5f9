"""Credentials that expire: the message is refused in the broker's words, until the operator renews them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from support.brokers import READERS, NatsReader, options_of, sending
from support.nats_credentials import NatsWithCredentials
from support.settings import change_settings

from devstack.brokers import Certificates
from devstack.ports import LOOPBACK
from devstack.process import Processes, wait_until

# The server's words on a connection that is open, and on a new one. The library changes letters between its releases.
REFUSALS = ('user authentication expired', 'authorization violation')
# Seconds.
PATIENCE, LIFETIME = 60.0, 3.0


def test_expired_nats_credentials_are_refused_until_the_file_is_renewed(stack, processes: Processes, monkeypatch):
    broker = NatsWithCredentials(stack.folder / 'nats-credentials', processes)
    broker.write_credentials()
    broker.start()
    reader = NatsReader(broker)
    reader.prepare()
    change_settings(monkeypatch, brokers={'bus': broker.options})
    with sending(reader) as send:
        assert send().error == ''
    broker.write_credentials(LIFETIME)
    with sending(reader) as send:
        outcomes = [send()]

        def is_refused() -> bool:
            outcomes.append(send())
            return not outcomes[-1].succeeded and not outcomes[-1].unreachable

        assert wait_until(is_refused, PATIENCE, interval=0.5)
        assert any(words in outcomes[-1].error.lower() for words in REFUSALS), outcomes[-1].error
        broker.write_credentials()
        assert send().error == ''
    broker.stop()


def _expired(folder: Path) -> tuple[Certificates, Certificates]:
    """Return a server's certificates, and a client's that expired yesterday."""
    authority, yesterday = trustme.CA(), datetime.now(UTC) - timedelta(days=1)
    authority.cert_pem.write_to_path(str(folder / 'ca.pem'))
    found = []
    for name, until in (('server', None), ('client', yesterday)):
        issued = authority.issue_cert(LOOPBACK, 'localhost', not_after=until)
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f'{name}.pem'))
        (folder / f'{name}.pem').chmod(0o644)
        found.append(Certificates(folder / 'ca.pem', folder / f'{name}.pem', folder / f'{name}.pem'))
    return found[0], found[1]


@pytest.mark.parametrize('driver', ['amqp', 'mqtt', 'nats', 'redis'])
def test_an_expired_client_certificate_is_a_broker_that_is_away(start_broker, driver, tmp_path, monkeypatch):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    server, client = _expired(tmp_path)
    broker = start_broker(driver, tls=server)
    reader = READERS[driver](broker)
    for tls, is_good in ((server, True), (client, False)):
        broker.tls = tls
        change_settings(monkeypatch, brokers={'bus': options_of(broker)})
        broker.tls = server
        if is_good:
            reader.prepare()
        with sending(reader) as send:
            outcome = send()
        assert outcome.succeeded == is_good
        assert outcome.unreachable != is_good
    reader.close()
