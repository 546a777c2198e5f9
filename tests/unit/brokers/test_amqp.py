"""What a channel of RabbitMQ makes of the broker's answers, in any order: returns name the message, acks its number."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from webhooks.brokers.amqp import _Channel
from webhooks.brokers.driver import Away, Message, Refused

MESSAGE = Message(address='netbox/lost', key='dcim.site:1', id='one', headers={}, body=b'{}')
NO_ROUTE = SimpleNamespace(reply_code=312, reply_text='NO_ROUTE')


class Broker:
    """Takes the place of pika's connection and its only channel. Confirms are agreed to at once."""

    is_open = True
    is_closing = is_closed = False

    def channel(self, on_open_callback: Callable[[Any], None]) -> 'Broker':
        asyncio.get_running_loop().call_soon(on_open_callback, self)
        return self

    def add_on_close_callback(self, callback: Callable[..., None]) -> None:
        self.closed = callback

    def add_on_return_callback(self, callback: Callable[..., None]) -> None:
        self.returned = callback

    def confirm_delivery(self, ack_nack_callback: Callable[..., None], callback: Callable[..., None]) -> None:
        self.answered = ack_nack_callback
        callback(None)

    def basic_publish(self, *_arguments: Any, **_options: Any) -> None:
        """The tests answer."""

    def give_back(self) -> None:
        self.returned(self, NO_ROUTE, BasicProperties(message_id=MESSAGE.id), b'{}')

    def ack(self, number: int, multiple: bool = False) -> None:
        self.answered(Method(1, Basic.Ack(number, multiple)))

    def nack(self, number: int) -> None:
        self.answered(Method(1, Basic.Nack(number)))


async def publishing(channel: _Channel) -> asyncio.Task:
    task = asyncio.create_task(channel.publish('netbox', 'lost', MESSAGE))
    await asyncio.sleep(0)
    return task


async def second_attempt(answers: Callable[[Broker], None]) -> Any:
    """Publish the message, give it up, publish it again, and return what the second attempt gets after the answers."""
    broker = Broker()
    channel = await _Channel.open(broker)
    first = await publishing(channel)
    first.cancel()
    second = await publishing(channel)
    answers(broker)
    try:
        return await asyncio.wait_for(second, 10)
    finally:
        # A third attempt, for which a queue is there by now, gets its own answer.
        third = await publishing(channel)
        broker.ack(3)
        assert await asyncio.wait_for(third, 10) == 3


def both_returned_then_acknowledged_singly(broker: Broker) -> None:
    broker.give_back()
    broker.give_back()
    broker.ack(1)
    broker.ack(2)


def both_returned_then_acknowledged_together(broker: Broker) -> None:
    broker.give_back()
    broker.give_back()
    broker.ack(2, multiple=True)


def each_returned_and_acknowledged(broker: Broker) -> None:
    for number in (1, 2):
        broker.give_back()
        broker.ack(number)


def one_returned_and_both_acknowledged(broker: Broker) -> None:
    """Of which of them it is, the broker does not say."""
    broker.give_back()
    broker.ack(1)
    broker.ack(2)


@pytest.mark.parametrize(
    'answers',
    [
        both_returned_then_acknowledged_singly,
        both_returned_then_acknowledged_together,
        each_returned_and_acknowledged,
        one_returned_and_both_acknowledged,
    ],
)
def test_a_returned_message_is_refused_though_an_earlier_attempt_was_given_up(answers: Callable[[Broker], None]):
    with pytest.raises(Refused, match='312 NO_ROUTE'):
        asyncio.run(second_attempt(answers))


def test_a_message_that_no_broker_returned_is_confirmed_by_its_number():
    assert asyncio.run(second_attempt(lambda broker: broker.ack(2, multiple=True))) == 2


def test_a_rejected_message_is_sent_again_later():
    def answers(broker: Broker) -> None:
        broker.ack(1)
        broker.nack(2)

    with pytest.raises(Away, match='full'):
        asyncio.run(second_attempt(answers))
