"""Packets of open connections to PostgreSQL vanish, as behind a firewall that forgets them. New connections work."""

import os
import socket
from collections.abc import Iterator

import pytest
from dcim.models import Site
from django.db import connection
from django_rq import get_worker
from support.builders import site, subscribe
from support.silence import Way, way_to_postgresql

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.engine import sql
from webhooks.engine.process import dispatcher, sender, supervisor
from webhooks.engine.process.supervisor import Supervisor
from webhooks.models import Webhook
from webhooks.worker import WebhooksWorker

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

PATIENCE = 90


@pytest.fixture
def way() -> Iterator[Way]:
    with way_to_postgresql() as way:
        yield way


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site)


def test_changes_arrive_although_each_connection_of_a_worker_falls_silent(
    webhook, receiver, children, monkeypatch, way
):
    for module in (dispatcher, sender):
        monkeypatch.setattr(module, 'HANG_SECONDS', 5.0)
    children.fork(get_worker('high', 'default', 'low', worker_class=WebhooksWorker).work)
    site()
    assert receiver.wait_for(1, timeout=PATIENCE)
    for number in (2, 3):
        connection.close()
        # Dispatcher and sender look by themselves, outside of a job, whose time limit would end a hang.
        way.used.clear()
        assert wait_until(lambda: len(way.used) >= 4, timeout=PATIENCE)  # both ends of two connections
        way.fall_silent()
        assert wait_until(lambda: len(way.lost) >= 2, timeout=PATIENCE)
        site()
        assert receiver.wait_for(number, timeout=PATIENCE)


def test_the_kernel_watches_the_connections_of_a_worker(monkeypatch, way):
    """It notices sooner, and also where only a thread waits."""
    monkeypatch.setitem(connection.settings_dict, 'OPTIONS', {'keepalives_idle': 20})
    sql.bound_connections()
    connection.ensure_connection()
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as own:
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20


def test_a_rescue_whose_connection_falls_silent_is_done_with_another_one(webhook, monkeypatch, way):
    one = Supervisor(None, [], lambda: None)
    one._ended.append(('a process', None))
    connection.ensure_connection()
    way.fall_silent()
    with monkeypatch.context() as hasty:
        hasty.setattr(supervisor, 'RESCUE_SECONDS', 1.0)
        one._rescue()
    assert one._ended
    one._rescue()
    assert not one._ended
