"""An attempt tells what the receiver got, also after everything else has changed."""

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from dcim.models import Region, Site
from django.db import connection, transaction
from netbox.registry import registry
from support.builders import CREATED, site, subscribe
from support.engine import deliveries, die, dispatch_all, pass_retry_waits, work
from support.loopback import serving

from devstack.receiver import Answer, Receiver
from webhooks.choices import FormatChoices
from webhooks.models import Attempt, Credential, Event, Webhook
from webhooks.payload import kept
from webhooks.payload.kept import Body, Origin
from webhooks.security.masking import MASK
from webhooks.services import trial

pytestmark = pytest.mark.usefixtures('committed')

FORM = 'application/x-www-form-urlencoded'
WAYS = {
    'default': {},
    'form': {'http_content_type': FORM},
    'with snapshots': {'include_snapshots': True},
    'expanded': {'expand': ['region']},
    'netbox': {'payload_format': FormatChoices.NETBOX},
    'netbox with differences': {'payload_format': FormatChoices.NETBOX, 'include_snapshots': True},
    'cloudevents': {'payload_format': FormatChoices.CLOUDEVENTS},
    'cloudevents with snapshots': {'payload_format': FormatChoices.CLOUDEVENTS, 'include_snapshots': True},
    'without standard headers': {'standard_headers': False},
}
OTHER_WAY = {
    'http_content_type': 'application/json',
    'payload_format': FormatChoices.CLOUDEVENTS,
    'include_snapshots': True,
    'expand': ['tenant'],
}


def attempts() -> list[Attempt]:
    return list(Attempt.objects.order_by('pk'))


def save(webhook: Webhook, **fields: Any) -> None:
    webhook = Webhook.objects.get(pk=webhook.pk)
    webhook.snapshot()
    for name, value in fields.items():
        setattr(webhook, name, value)
    webhook.full_clean()
    webhook.save()


def test_a_body_without_a_template_is_made_again_byte_by_byte_whatever_was_saved_since(receiver: Receiver):
    webhooks = {
        way: subscribe(receiver.url(f'/{number}'), Site, secret='s3cret', **fields)
        for number, (way, fields) in enumerate(WAYS.items())
    }
    region = Region.objects.create(name='Mittelland', slug='mittelland')
    berlin = site(name='Zürich ✓', region=region, custom_field_data={'a': [1, None]})
    work()
    berlin.snapshot()
    berlin.name, berlin.region = 'Berlin', None
    berlin.save()
    work()
    berlin.delete()
    work()
    region.delete()
    for way, webhook in webhooks.items():
        save(webhook, **OTHER_WAY | ({'include_snapshots': False} if 'snapshots' in way else {}))

    for number, (way, webhook) in enumerate(webhooks.items()):
        sent = receiver.matching(lambda request, path=f'/{number}': request.path == path)
        stored = list(Attempt.objects.filter(delivery__webhook=webhook).order_by('pk'))
        found = [kept.body_of(attempt) for attempt in stored]
        assert [body.text.encode() for body in found] == [request.body for request in sent], way
        assert [body.origin for body in found] == [Origin.SAME] * 3, way
        assert [attempt.request_body for attempt in stored] == [None] * 3, way


def test_the_body_of_a_replaced_change_is_shown_as_it_was_sent(receiver: Receiver):
    webhook = subscribe(receiver.url('/'), Site, latest_only=True, include_snapshots=True)
    bern = site(name='Bern')
    save(webhook, paused=True)
    for name in ('Genf', 'Basel'):
        bern.snapshot()
        bern.name = name
        bern.save()
    dispatch_all()
    save(webhook, paused=False)
    work()
    (request,) = receiver.wait_for(1)
    assert request.json()['event'] == CREATED
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body(request.body.decode(), Origin.SAME)


def test_the_body_of_a_test_is_shown_as_it_was_sent(receiver: Receiver):
    webhook = subscribe(receiver.url('/'), Site)
    site()
    trial.send_test(webhook)
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body(receiver.wait_for(1)[0].body.decode(), Origin.SAME)


def test_each_attempt_shows_its_own_body(receiver: Receiver):
    receiver.answers('/', Answer(500), Answer(500), Answer(200))
    webhook = subscribe(receiver.url('/'), Site)
    site()
    work()
    save(webhook, body_template='{{ data.name }} was {{ event }}')
    pass_retry_waits()
    work()
    save(webhook, body_template='')
    pass_retry_waits()
    work()
    found = [kept.body_of(attempt) for attempt in attempts()]
    assert [body.text.encode() for body in found] == [request.body for request in receiver.wait_for(3)]
    assert [body.origin for body in found] == [Origin.SAME, Origin.KEPT, Origin.SAME]


def test_a_body_by_a_template_is_kept_without_credentials(receiver: Receiver):
    credential = Credential.objects.create(name='x', type='template', secret='tok3n-x', hosts=[receiver.url()[:-1]])
    webhook = subscribe(
        receiver.url('/'), Site, credential=credential, body_template='{{ data.name }}: {{ credential.token }} ✓'
    )
    site(name='Bern')
    work()
    assert receiver.wait_for(1)[0].body.decode() == 'Bern: tok3n-x ✓'
    save(webhook, body_template='other')
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body(f'Bern: {MASK} ✓', Origin.KEPT)
    with connection.cursor() as cursor:
        cursor.execute('SELECT request_body FROM webhooks_attempt')
        ((stored,),) = cursor.fetchall()
    assert b'tok3n' not in zlib.decompress(stored)


def test_a_body_of_several_changes_is_kept(receiver: Receiver):
    webhooks = {
        name: subscribe(receiver.url(f'/{name}'), Site, payload_format=name, change_set=True)
        for name in FormatChoices.values()
    }
    with transaction.atomic():
        for _ in range(3):
            site()
    work()
    Event.objects.exclude(pk=Event.objects.last().pk).delete()
    for name, webhook in webhooks.items():
        save(webhook, change_set=False)
        attempt = Attempt.objects.get(delivery__webhook=webhook)
        (request,) = receiver.matching(lambda request, path=f'/{name}': request.path == path)
        assert kept.body_of(attempt) == Body(request.body.decode(), Origin.KEPT), name


def test_a_long_body_is_kept_to_its_limit(receiver: Receiver):
    subscribe(receiver.url('/'), Site, body_template='{{ "äb" * 30000 }}')
    site()
    work()
    sent = receiver.wait_for(1)[0].body
    (attempt,) = attempts()
    text, origin = kept.body_of(attempt)
    assert origin is Origin.CUT
    assert text.encode()[: kept.MAX_KEPT_BYTES - 3] == sent[: kept.MAX_KEPT_BYTES - 3]
    assert len(attempt.request_body) < 1000 < kept.MAX_KEPT_BYTES < len(sent)


def test_a_body_of_just_the_limit_is_whole(receiver: Receiver):
    subscribe(receiver.url('/'), Site, body_template=f'{{{{ "a" * {kept.MAX_KEPT_BYTES} }}}}')
    site()
    work()
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body('a' * kept.MAX_KEPT_BYTES, Origin.KEPT)


@pytest.fixture
def callback(receiver: Receiver) -> Iterator[None]:
    callbacks = registry['webhook_callbacks']
    callbacks.append(lambda *args: {'number': len(receiver.requests)})
    yield
    callbacks.pop()


def test_a_body_with_additions_of_a_plugin_is_kept(receiver: Receiver, callback: None):
    subscribe(receiver.url('/'), Site, payload_format=FormatChoices.NETBOX)
    site()
    work()
    (request,) = receiver.wait_for(1)
    assert request.json()['context'] == {'number': 0}
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body(request.body.decode(), Origin.KEPT)


def test_a_body_that_nobody_can_make_again_is_not_called_the_same(receiver: Receiver):
    """A later version may write an event in another way."""
    subscribe(receiver.url('/'), Site)
    site()
    work()
    Event.objects.update(username='somebody else')
    (attempt,) = attempts()
    text, origin = kept.body_of(attempt)
    assert origin is Origin.OTHER
    assert json.loads(text)['username'] == 'somebody else'


def test_a_request_that_nobody_recorded_shows_no_body(receiver: Receiver):
    subscribe(receiver.url('/'), Site)
    site()
    dispatch_all()
    die(*deliveries())
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body('', Origin.UNKNOWN)


def test_an_attempt_of_an_older_version_shows_no_body(receiver: Receiver):
    subscribe(receiver.url('/'), Site)
    site()
    work()
    Attempt.objects.update(made_from=None)
    (attempt,) = attempts()
    assert kept.body_of(attempt) == Body('', Origin.UNKNOWN)


def test_a_request_for_an_access_token_is_not_kept(receiver: Receiver):
    with serving(b'HTTP/1.1 400 no\r\nContent-Length: 0\r\n\r\n') as token_server:
        credential = Credential.objects.create(
            name='x',
            type='oauth2',
            username='netbox',
            secret='cl1ent-secret',
            token_url=token_server.url('/token'),
            hosts=[receiver.url()[:-1]],
        )
        subscribe(receiver.url('/'), Site, credential=credential)
        site()
        work()
    assert token_server.requests[0].endswith(b'client_credentials')
    (attempt,) = attempts()
    assert (attempt.request_body, attempt.made_from) == (None, None)
