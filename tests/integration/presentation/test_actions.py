"""Both UIs give an action the same name and permission."""

from collections.abc import Callable

import pytest
from core.models import DataSource
from dcim.models import Site
from support.admin_browser import page_of
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from webhooks.choices import StatusChoices
from webhooks.models import Credential, Definition, Delivery, Webhook
from webhooks.services import actions
from webhooks.services.actions import Action, Where

pytestmark = pytest.mark.usefixtures('db')


def named(one: Action) -> str:
    return f'{one.model.__name__}-{one.name}'


def rows(where: Where) -> pytest.MarkDecorator:
    """Run a test for each row of the table that one of these places offers."""
    return pytest.mark.parametrize('one', [one for one in actions.TABLE if one.where & where], ids=named)


def something(one: Action) -> Webhook | Delivery | Definition:
    """Return an object that the action may be taken with."""
    if one.model is Definition:
        source = DataSource.objects.create(name='infra', type='local', source_url='/nowhere')
        return Definition.objects.create(name='Ours', data_source=source, path='webhooks.yaml')
    webhook = subscribe(NOWHERE, Site)
    return webhook if one.model is Webhook else delivery(event(site()), webhook, status=StatusChoices.FAILED)


def grant_more(one: Action, grant: Callable[..., None]) -> None:
    """Grant what applying a definition also needs."""
    for model in (Webhook, Credential) if one.model is Definition else ():
        grant(model, 'add', 'change')


@pytest.mark.parametrize('one', actions.TABLE, ids=named)
def test_every_permission_exists(one):
    meta = one.model._meta
    assert one.permission in {*meta.default_permissions, *(permission for permission, _label in meta.permissions)}


@rows(Where.BUTTON | Where.CARD | Where.MENU)
def test_an_action_has_a_view_that_asks_for_its_permission(clerk_pages, grant, one):
    found = something(one)
    address = f'{found.get_absolute_url()}{one.address}/'
    grant(one.model, 'view')
    grant(Site, 'view')
    assert clerk_pages.get(address).status_code == 403
    grant(one.model, one.permission)
    grant_more(one, grant)
    assert clerk_pages.get(address).status_code == (200 if one.has_form else 302)


@rows(Where.REST)
def test_an_action_has_an_endpoint_that_asks_for_its_permission(clerk_api, grant, one):
    found = something(one)
    address = f'/api/plugins/webhooks/{found._meta.verbose_name_plural}/{found.pk}/{one.address}/'
    grant(one.model, 'view')
    grant(Site, 'view')
    assert clerk_api.post(address).status_code == 403
    grant(one.model, one.permission)
    grant_more(one, grant)
    assert clerk_api.post(address).status_code in (200, 201, 409)


@rows(Where.ADMIN)
def test_the_admin_offers_an_action_on_the_page_of_its_object(admin_pages, one):
    page = admin_pages.get(page_of(something(one)))
    assert one.name in dict(page.context['action_form'].fields['action'].choices)


def test_the_table_has_each_action():
    assert set(actions.TABLE) == {found for found in vars(actions).values() if isinstance(found, Action)}
    assert len(actions.TABLE) == len(set(actions.TABLE))


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
def test_a_page_that_asks_says_what_the_action_does(admin_pages, action, path):
    webhook = subscribe(NOWHERE, Site)
    assert str(action.label) in admin_pages.get(webhook.get_absolute_url()).content.decode()
    page = admin_pages.get(f'{webhook.get_absolute_url()}{path}').content.decode()
    assert str(action.title) in page
    assert str(action.explanation) in page
