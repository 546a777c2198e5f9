"""`scripts/demo --broker nats`: the same changes in a stream of NATS JetStream."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from devstack.brokers import Nats
from devstack.failure import Failure
from devstack.process import wait_until
from devstack.show import DIM, paint, show, title
from devstack.stack import Stack

NAME, STREAM = 'bus', 'NETBOX'
ADDRESS = 'netbox.{{ object_type }}.{{ event }}'
PATIENCE = 30.0


@contextmanager
def running_nats(stack: Stack) -> Iterator[Nats]:
    """Start a server with a stream that takes netbox.>."""
    broker = Nats(stack.folder / 'nats', stack.processes)
    broker.start()
    make_stream(broker)
    try:
        yield broker
    finally:
        broker.stop()


def make_stream(broker: Nats) -> None:
    async def add(stream: Any) -> None:
        await stream.add_stream(name=STREAM, subjects=['netbox.>'])

    _with_stream(broker, add)


def settings_of(broker: Nats) -> str:
    return f"PLUGINS_CONFIG = {{'webhooks': {{'brokers': {{{NAME!r}: {broker.options!r}}}}}}}\n"


def show_messages(broker: Nats, number: int) -> None:
    """Show the stream as soon as it has so many messages. Raises Failure if they do not come."""
    title(f'The same changes in the stream {STREAM} of NATS, by {broker.url(ADDRESS)}')

    def have_come() -> bool:
        return _with_stream(broker, _count) >= number

    if not wait_until(have_come, PATIENCE, interval=0.2):
        raise Failure(f'{number} messages did not arrive at the broker within {PATIENCE:.0f} s')
    for message in _with_stream(broker, _read):
        body = json.loads(message.data)
        show(f'  {message.subject}   {paint("sequence", DIM)} {message.seq}')
        show(f'    {paint("Nats-Msg-Id:", DIM)} {message.headers["Nats-Msg-Id"]}   {body["data"]["display"]}')


async def _count(stream: Any) -> int:
    return (await stream.stream_info(STREAM)).state.messages


async def _read(stream: Any) -> list[Any]:
    return [await stream.get_msg(STREAM, number) for number in range(1, await _count(stream) + 1)]


def _with_stream(broker: Nats, work: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        import nats

        connection = await nats.connect(servers=broker.options['servers'])
        try:
            return await work(connection.jetstream())
        finally:
            await connection.close()

    return asyncio.run(run())
