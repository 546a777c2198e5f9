"""Connections to NATS, one after the other: what one is told is nothing to the next."""

import asyncio

import pytest

from webhooks.brokers.driver import Lost
from webhooks.brokers.nats import _Link


async def acknowledged_after(told: _Link, publishes: _Link) -> str:
    """Return the answer to a message on one connection after the server has ended `told`."""
    has_come = asyncio.get_running_loop().create_future()

    async def answer() -> str:
        return await has_come

    waiting = asyncio.create_task(publishes._unless_trouble('netbox.sites', answer()))
    await asyncio.sleep(0)
    await told._lose()
    # What was told reaches who waits.
    for _ in range(10):
        await asyncio.sleep(0)
    if not waiting.done():
        has_come.set_result('acknowledged')
    return await waiting


def test_the_end_of_an_old_connection_ends_no_wait_of_the_next():
    assert asyncio.run(acknowledged_after(_Link(), _Link())) == 'acknowledged'


def test_the_end_of_a_connection_ends_its_own_waits():
    same = _Link()
    with pytest.raises(Lost):
        asyncio.run(acknowledged_after(same, same))
