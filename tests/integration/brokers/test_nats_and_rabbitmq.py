"""What only NATS and RabbitMQ do: many messages share one connection, and one of them must not harm the others."""

from collections.abc import Iterator

import pytest
from support.brokers import Reader, Sender, sending

pytestmark = pytest.mark.usefixtures('bus')


@pytest.fixture
def send(reader: Reader) -> Iterator[Sender]:
    with sending(reader) as sender:
        yield sender


@pytest.mark.parametrize('driver', ['amqp'])
class TestRabbitMq:
    @pytest.mark.parametrize('name', ['Content-Type', 'X-' + 'a' * 300])
    def test_a_message_that_cannot_be_sent_fails_and_later_ones_get_their_own_answers(self, send: Sender, name: str):
        assert send().succeeded
        outcome = send(headers={'Content-Type': 'application/json'} | {name: 'b' * 300})
        assert [send().error for _ in range(2)] == ['', '']
        assert outcome.error == 'the name of a header or the content type is longer than 255 bytes'
        assert not outcome.unreachable
