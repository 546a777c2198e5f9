"""Both UIs give an action the same name and permission."""

import pytest
from dcim.models import Site
from support.admin_browser import page_of
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Webhook
from webhooks.presentation import actions
from webhooks.presentation.actions import Action

ACTIONS = {name: action for name, action in vars(actions).items() if isinstance(action, Action)}
OF_DELIVERIES = {'REDELIVER', 'REDELIVER_SELECTED', 'REDELIVER_FAILED'}

pytestmark = pytest.mark.usefixtures('db')


@pytest.mark.parametrize('name', ACTIONS)
def test_every_permission_exists(name):
    model = Delivery if name in OF_DELIVERIES else Webhook
    known = {*model._meta.default_permissions, *(permission for permission, _label in model._meta.permissions)}
    assert ACTIONS[name].permission in known


def test_both_pages_call_an_action_by_the_same_name(admin_pages):
    webhook = subscribe(NOWHERE, Site)
    failed = delivery(event(site()), webhook, status=StatusChoices.FAILED)
    for one, action in ((webhook, actions.TEST), (failed, actions.REDELIVER)):
        for address in (one.get_absolute_url(), page_of(one)):
            shown = ' '.join(admin_pages.get(address).content.decode().split())
            assert f'{action.label}</button>' in shown.replace(' </button>', '</button>'), address


@pytest.mark.parametrize(
    ('action', 'path'),
    [(actions.REPLAY, 'replay/'), (actions.BACKFILL, 'backfill/'), (actions.ROTATE_SECRET, 'rotate-secret/')],
)
def test_whoever_confirms_an_action_reads_what_it_does(admin_pages, action, path):
    webhook = subscribe(NOWHERE, Site)
    assert str(action.label) in admin_pages.get(webhook.get_absolute_url()).content.decode()
    page = admin_pages.get(f'{webhook.get_absolute_url()}{path}').content.decode()
    assert str(action.title) in page
    assert str(action.explanation) in page


def test_the_admin_offers_its_actions_by_their_names(admin_pages):
    offered = {
        str(label)
        for _name, label in admin_pages.get('/admin/webhooks/webhook/').context['action_form'].fields['action'].choices
    }
    assert {
        str(one.label) for one in (actions.TEST, actions.ENABLE, actions.DISABLE, actions.REDELIVER_FAILED)
    } <= offered
