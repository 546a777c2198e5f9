"""Rotation and preview through the REST API."""

import base64
from datetime import timedelta

import pytest
from dcim.models import Site
from django.utils import timezone
from standardwebhooks import Webhook as Verifier

from tests.integration.builders import subscribe
from webhooks import drain
from webhooks.models import Webhook

BASE = '/api/plugins/webhooks/webhooks/'


@pytest.fixture
def webhook(committed, receiver):
    return subscribe(receiver.url('/hook'), Site, secret='whsec_' + base64.b64encode(b'k' * 24).decode())


def test_after_a_rotation_both_secrets_verify_until_the_old_one_expires(webhook, api_client, receiver):
    old = webhook.secret.reveal()
    answer = api_client.post(f'{BASE}{webhook.pk}/rotate-secret/', {'overlap': '01:00:00'}, format='json')
    assert answer.status_code == 200, answer.data
    Site.objects.create(name='Bern', slug='bern')
    drain.run()
    (got,) = receiver.wait_for(1)
    for secret in (answer.data['secret'], old):
        Verifier(secret).verify(got.body, {name.lower(): value for name, value in got.headers})
    Webhook.objects.filter(pk=webhook.pk).update(previous_secret_expires=timezone.now() - timedelta(seconds=1))
    Site.objects.create(name='Genf', slug='genf')
    drain.run()
    assert ' ' not in receiver.wait_for(2)[1].header('webhook-signature')


def test_an_asymmetric_key_shows_its_public_half(webhook, api_client):
    answer = api_client.post(f'{BASE}{webhook.pk}/rotate-secret/', {'prefix': 'whsk_'}, format='json')
    assert answer.data['secret'].startswith('whsk_')
    shown = api_client.get(f'{BASE}{webhook.pk}/').data
    assert shown['public_key'] == answer.data['public_key'] != ''
    assert 'secret' not in shown


def test_a_rotation_needs_permission_to_change(webhook, clerk_api):
    assert clerk_api.post(f'{BASE}{webhook.pk}/rotate-secret/', {}, format='json').status_code in (403, 404)
    assert Webhook.objects.get(pk=webhook.pk).previous_secret.reveal() == ''


def test_a_preview_renders_what_is_not_saved(webhook, api_client, receiver):
    Site.objects.create(name='Bern', slug='bern')
    drain.run()
    answer = api_client.post(f'{BASE}{webhook.pk}/preview/', {'body_template': 'Hello {{ data.name }}'}, format='json')
    assert answer.status_code == 200, answer.data
    assert answer.data['body'] == 'Hello Bern'
    assert Webhook.objects.get(pk=webhook.pk).body_template == ''
    assert len(receiver.requests) == 1


def test_a_preview_names_the_line_of_an_error(webhook, api_client):
    Site.objects.create(name='Bern', slug='bern')
    drain.run()
    answer = api_client.post(f'{BASE}{webhook.pk}/preview/', {'body_template': 'a\n{{ data.x.y }}'}, format='json')
    assert answer.status_code == 400
    assert '(line 2)' in str(answer.data['body_template'])
