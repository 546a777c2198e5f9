"""Both UIs give a state the same word and colour."""

import re
from pathlib import Path

import pytest
from dcim.models import Site
from django.utils import timezone
from support.admin_browser import WEBHOOKS
from support.builders import NOWHERE, subscribe

import webhooks
from webhooks.choices import StatusChoices
from webhooks.models import Health, Webhook
from webhooks.presentation.states import STATES, in_state, state_of, with_states

NOW = timezone.now()
SUSPENDED = {'suspended_since': NOW, 'probe_at': NOW, 'last_error': 'refused'}
# Each includes the cause of a later state.
CAUSES = {
    'disabled': ({'enabled': False, 'paused': True}, SUSPENDED),
    'paused': ({'paused': True}, SUSPENDED),
    'suspended': ({}, SUSPENDED),
    'failing': ({}, {'last_error': 'HTTP 500'}),
    'unused': ({'models': ()}, {'last_error': ''}),
    'active': ({}, {'last_error': ''}),
}

pytestmark = pytest.mark.usefixtures('db')


def in_the_state(key: str) -> Webhook:
    settings, health = CAUSES[key]
    settings = dict(settings)
    webhook = subscribe(NOWHERE, *settings.pop('models', (Site,)), name=key, **settings)
    Health.objects.filter(webhook=webhook).update(last_attempt_at=NOW, **health)
    return Webhook.objects.select_related('health').get(pk=webhook.pk)


def test_every_state_has_a_cause_here():
    assert CAUSES.keys() == STATES.keys()


@pytest.mark.parametrize('key', STATES)
def test_the_filter_of_a_state_finds_what_is_in_it(key):
    webhooks = {name: in_the_state(name) for name in STATES}
    assert state_of(webhooks[key]) is STATES[key]
    assert list(with_states(Webhook.objects.all()).filter(in_state(key))) == [webhooks[key]]


@pytest.mark.parametrize('key', STATES)
def test_both_lists_and_both_pages_say_the_same_in_the_same_colour(admin_pages, key):
    webhook = in_the_state(key)
    state = STATES[key]
    badge = f'<span class="badge text-bg-{state.color}">{state.label}</span>'
    word = re.compile(rf'<span class="wh-word wh-{state.color}" title="[^"]*">{state.label}</span>')
    for address in ('/plugins/webhooks/webhooks/', webhook.get_absolute_url()):
        assert badge in admin_pages.get(address).content.decode(), address
    for address in (WEBHOOKS, f'{WEBHOOKS}{webhook.pk}/change/'):
        assert word.search(admin_pages.get(address).content.decode()), address


def test_the_admin_has_a_rule_for_every_colour():
    style = (Path(webhooks.__file__).parent / 'static' / 'webhooks' / 'admin.css').read_text()
    colors = {state.color for state in STATES.values()} | {*StatusChoices.colors.values()}
    assert not [color for color in colors if f'.wh-{color} {{' not in style]
