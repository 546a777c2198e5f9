"""Credentials that expire: the message is refused in the broker's words, until the operator renews them."""

from support.brokers import NatsReader, sending
from support.nats_credentials import NatsWithCredentials
from support.settings import change_settings

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
