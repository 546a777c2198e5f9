"""Warming up is a convenience: whatever stands in its way is logged, and left to whom it concerns."""

import logging

import pytest
from dcim.models import Site
from netbox.registry import registry
from support.builders import NOWHERE, site, subscribe
from support.engine import pass_retry_waits, work

from webhooks import rendering
from webhooks.engine import warmup
from webhooks.models import Delivery

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def webhook():
    return subscribe(NOWHERE, Site)


def test_a_rehearsal_changes_nothing(webhook, caplog):
    site()
    work()
    before = list(Delivery.objects.values())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warmup.rehearse()
    assert not caplog.records
    assert list(Delivery.objects.values()) == before
    pass_retry_waits()
    work()
    assert list(Delivery.objects.values()) != before


def test_what_is_due_is_left_to_a_job(webhook, caplog):
    site()
    work()
    Delivery.objects.update(due_at='2000-01-01T00:00Z')
    caplog.clear()
    warmup.rehearse()
    assert not caplog.records
    assert Delivery.objects.get().attempt_count == 1
    work()
    assert Delivery.objects.get().attempt_count == 2


def test_a_model_that_cannot_be_rendered_is_logged(webhook, caplog, monkeypatch):
    def fail(*args):
        raise RuntimeError('no')

    site()
    monkeypatch.setattr(rendering, 'render', fail)
    warmup.warm_up()
    assert [record.getMessage() for record in caplog.records] == ['warm_up=failed model=dcim.site']


def test_whatever_else_fails_is_logged(webhook, caplog, monkeypatch):
    def fail(*args):
        raise RuntimeError('no')

    monkeypatch.setattr('webhooks.engine.claims.claim', fail)
    warmup.rehearse()
    assert [record.getMessage() for record in caplog.records] == ['rehearsal=failed']


def test_a_rehearsal_calls_nothing_of_plugins(caplog):
    """What a callback does is not to be done twice."""
    calls = []
    subscribe(NOWHERE, Site, payload_format='netbox')
    site()
    work()
    registry['webhook_callbacks'].append(lambda *args: calls.append(args))
    caplog.clear()
    try:
        warmup.rehearse()
        assert not caplog.records
        assert not calls
        site()
        work()
        assert calls, 'a job calls them'
    finally:
        registry['webhook_callbacks'].pop()
