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
    'gone': ({'enabled': False, 'paused': True}, {'last_status': 410, 'last_error': 'HTTP 410 Gone'}),
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


def test_the_filter_of_a_state_finds_what_is_in_it():
    webhooks = {name: in_the_state(name) for name in STATES}
    for key, webhook in webhooks.items():
        assert state_of(webhook) is STATES[key]
        assert list(with_states(Webhook.objects.all()).filter(in_state(key))) == [webhook]


@pytest.mark.parametrize('address', ['/plugins/webhooks/webhooks/', '/api/plugins/webhooks/webhooks/'])
def test_lists_are_filtered_by_one_or_more_states(admin_pages, address):
    for name in STATES:
        in_the_state(name)

    def found(**filters: object) -> set[str]:
        answer = admin_pages.get(address, filters)
        assert answer.status_code == 200
        if answer.context:
            return {row.record.name for row in answer.context['table'].rows}
        return {one['name'] for one in answer.json()['results']}

    assert found(state='gone') == {'gone'}
    assert found(state=['paused', 'suspended']) == {'paused', 'suspended'}
    assert found() == set(STATES)
    assert found(state='disabled', enabled='true') == set()


def test_a_webhook_that_its_receiver_disabled_looks_so_until_it_is_enabled():
    webhook = in_the_state('gone')
    Webhook.objects.filter(pk=webhook.pk).update(enabled=True, paused=False)
    assert state_of(Webhook.objects.get(pk=webhook.pk)) is STATES['failing']


def test_both_lists_and_both_pages_say_the_same_in_the_same_colour(admin_pages):
    webhooks = {key: in_the_state(key) for key in STATES}
    ours, admins = (admin_pages.get(path).content.decode() for path in ('/plugins/webhooks/webhooks/', WEBHOOKS))
    for key, webhook in webhooks.items():
        state = STATES[key]
        badge = f'<span class="badge text-wrap text-bg-{state.color}">{state.label}</span>'
        word = re.compile(rf'<span class="wh-word wh-{state.color}" title="[^"]*">{state.label}</span>')
        assert badge in ours, key
        assert badge in admin_pages.get(webhook.get_absolute_url()).content.decode(), key
        assert word.search(admins), key
        assert word.search(admin_pages.get(f'{WEBHOOKS}{webhook.pk}/change/').content.decode()), key


def test_the_admin_has_a_rule_for_every_colour():
    style = (Path(webhooks.__file__).parent / 'static' / 'webhooks' / 'admin.css').read_text()
    colors = {state.color for state in STATES.values()} | {*StatusChoices.colors.values()}
    assert not [color for color in colors if f'.wh-{color} {{' not in style]
