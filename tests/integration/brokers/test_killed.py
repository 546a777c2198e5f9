"""Sender and broker are killed while messages are under way."""

import time

import pytest
from dcim.models import Site
from django.db import transaction
from support.brokers import READERS, Relay
from support.builders import site, subscribe
from support.engine import deliveries, disorder, health
from support.settings import change_settings

from devstack.process import wait_until
from webhooks.choices import StatusChoices

pytestmark = pytest.mark.usefixtures('committed')

# What these confirmed they have written. The others keep it in memory here, so they are not killed.
KEEP = ('nats', 'amqp', 'redis')
PATIENCE = 180.0
OUTAGE_SECONDS = 60.0


@pytest.mark.parametrize(
    'driver', ['nats', *(pytest.param(one, marks=pytest.mark.long) for one in ('amqp', 'kafka', 'mqtt', 'redis'))]
)
def test_all_changes_arrive_and_no_object_goes_back(start_broker, driver, make_netbox, rqworker, monkeypatch):
    broker = start_broker(driver)
    reader = READERS[driver](broker)
    reader.prepare()
    brokers = {'bus': broker.options}
    change_settings(monkeypatch, brokers=brokers)
    # Slow enough that some wait when the worker dies.
    webhook = subscribe(broker.url(reader.address), Site, rate_limit=10)
    netbox = make_netbox(f"PLUGINS_CONFIG = {{'webhooks': {{'brokers': {brokers!r}}}}}")
    sites = [site() for _ in range(10)]

    def change_all() -> None:
        for one in sites:
            with transaction.atomic():
                one.description += 'x'
                one.save()

    change_all()
    change_all()
    worker = rqworker(netbox=netbox)
    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) >= 3, PATIENCE)
    worker.kill()
    if driver in KEEP:
        broker.kill()
    change_all()
    assert {one.status for one in deliveries(webhook=webhook)} >= {StatusChoices.PENDING}
    if driver in KEEP:
        broker.start()
    rqworker(netbox=netbox)
    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == 40, PATIENCE, interval=0.2)
    got = reader.wait_for(40)
    assert {one.id for one in got} == {str(one.uuid) for one in deliveries()}
    assert disorder([(one.json()['data']['id'], one.json()['sequence']) for one in got]) == []
    reader.close()


@pytest.mark.long
@pytest.mark.parametrize('driver', sorted(READERS))
def test_after_a_minute_without_the_broker_all_changes_arrive_in_order(
    start_broker, driver, make_netbox, rqworker, monkeypatch
):
    relay = Relay(0)
    broker = start_broker(driver, shown_port=relay.port)
    relay.target = broker.port
    reader = READERS[driver](broker)
    reader.prepare()
    brokers = {'bus': broker.options}
    change_settings(monkeypatch, brokers=brokers)
    webhook = subscribe(broker.url(reader.address), Site, timeout=2)
    rqworker(netbox=make_netbox(f"PLUGINS_CONFIG = {{'webhooks': {{'brokers': {brokers!r}}}}}"))
    changed = site()
    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == 1, PATIENCE)
    if driver in KEEP:
        broker.kill()
    relay.resets = True
    relay.cut()
    back_at = time.monotonic() + OUTAGE_SECONDS
    saves = 1
    while time.monotonic() < back_at:
        # Each new object is tried, so that five attempts in a row fail. The later changes of one wait for its first.
        site()
        changed.description = str(saves)
        changed.save()
        saves += 2
        wait_until(lambda: time.monotonic() >= back_at, 5, interval=0.5)
    assert health(webhook).suspended_since
    relay.resets = False
    if driver in KEEP:
        broker.start()
    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == saves, PATIENCE, interval=0.2)
    got = reader.wait_for(saves)
    assert disorder([(one.json()['data']['id'], one.json()['sequence']) for one in got]) == []
    reader.close()
    relay.close()
