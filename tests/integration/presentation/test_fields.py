"""Each field is in all places, or its file in presentation/ gives the reason."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from dcim.models import Site
from django.contrib.admin.utils import flatten_fieldsets
from support.admin_browser import ADD, page_of
from support.builders import NOWHERE, subscribe
from utilities.querydict import prepare_cloned_fields

import webhooks
from webhooks import tables
from webhooks.api.serializers import CredentialSerializer, WebhookSerializer
from webhooks.django_admin.credential import CredentialForm as AdminCredentialForm
from webhooks.django_admin.forms import WebhookForm as AdminForm
from webhooks.filtersets import CredentialFilterSet, WebhookFilterSet
from webhooks.forms.bulk_edit import CredentialBulkEditForm, WebhookBulkEditForm
from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.forms.credential import CredentialForm
from webhooks.forms.filters import WebhookFilterForm, filter_name
from webhooks.forms.webhook import WebhookForm
from webhooks.graphql.filters import WebhookFilter
from webhooks.graphql.types import CredentialType, WebhookType
from webhooks.models import Credential, Webhook
from webhooks.presentation import credential_fields
from webhooks.presentation.fields import FORM_ONLY, GROUPS, KINDS, LEFT_OUT, NAMES, field, help_of, is_switch
from webhooks.ui import panels

NEW = '/plugins/webhooks/webhooks/add/'
CONFIGURATION = Path(webhooks.__file__).parents[1] / 'docs' / 'configuration.md'
# Nobody sets these columns.
NOT_SET = {
    'id', 'created', 'last_updated', 'custom_field_data', 'previous_secret', 'previous_secret_expires',
    'managed_by', 'managed_in',
}  # fmt: skip

pytestmark = pytest.mark.usefixtures('db')


def filters() -> Iterable[str]:
    return {one.field_name.partition('__')[0] for one in WebhookFilterSet.base_filters.values()} | {'tags'}


def on_cards() -> Iterable[str]:
    return {name for card in panels.cards() for name in card._attrs}


def exported() -> Iterable[str]:
    return yaml.safe_load(subscribe(NOWHERE, Site).to_yaml())[0]


def in_docs() -> Iterable[str]:
    """The first cells of the docs' table name the fields."""
    table = CONFIGURATION.read_text().partition('| field | default |')[2].partition('\n\n')[0]
    cells = [line.split('|')[1] for line in table.splitlines() if line.startswith('|')]
    return {name for cell in cells for name in re.findall(r'`(\w+)`|\b(tags)\b', cell) for name in name}


def graphql_fields(of_type: type = WebhookType) -> Iterable[str]:
    return {one.python_name for one in of_type.__strawberry_definition__.fields}


def graphql_filters() -> Iterable[str]:
    return {one.python_name for one in WebhookFilter.__strawberry_definition__.fields}


# These are read only when a test runs.
PLACES = {
    'form': lambda: WebhookForm().fields,
    'bulk edit': lambda: WebhookBulkEditForm.base_fields,
    'import': lambda: WebhookImportForm.base_fields,
    'export': exported,
    'filters': filters,
    'list': lambda: tables.WebhookTable.base_columns,
    'cards': on_cards,
    'API': lambda: WebhookSerializer().fields,
    'GraphQL': graphql_fields,
    'GraphQL filters': graphql_filters,
    'copy': lambda: {*Webhook().clone_fields, 'tags'},
    'help': lambda: {name for name in NAMES if help_of(name)},
    'docs': in_docs,
}
PLACES_OF_CREDENTIAL = {
    'form': lambda: CredentialForm().fields,
    'admin': lambda: AdminCredentialForm().fields,
    'bulk edit': lambda: CredentialBulkEditForm.fieldsets[0].items,
    'list': lambda: tables.CredentialTable.base_columns,
    'card': lambda: panels.CREDENTIAL_CARD._attrs,
    'API': lambda: CredentialSerializer().fields,
    'filters': lambda: CredentialFilterSet._meta.fields,
    'GraphQL': lambda: {*graphql_fields(CredentialType)} - {'tags'},
    'copy': lambda: Credential.clone_fields,
}
ALL_PLACES = [
    *(pytest.param(place, PLACES, LEFT_OUT, NAMES, id=place) for place in PLACES),
    *(
        pytest.param(place, PLACES_OF_CREDENTIAL, credential_fields.LEFT_OUT, credential_fields.NAMES, id=f'of {place}')
        for place in PLACES_OF_CREDENTIAL
    ),
]


def test_the_source_names_every_field_of_the_model():
    columns = {one.name for one in (*Webhook._meta.fields, *Webhook._meta.many_to_many)}
    assert {*NAMES} == {*columns, 'tags'} - NOT_SET
    assert len(NAMES) == len({*NAMES})
    columns = {one.name for one in Credential._meta.fields}
    assert {*credential_fields.NAMES} == {*columns, 'tags'} - NOT_SET


def test_every_place_is_looked_at():
    assert PLACES.keys() == LEFT_OUT.keys()
    assert PLACES_OF_CREDENTIAL.keys() == credential_fields.LEFT_OUT.keys()


@pytest.mark.parametrize(('place', 'places', 'reasons', 'names'), ALL_PLACES)
def test_every_field_is_there_or_left_out_with_a_reason(place, places, reasons, names):
    found, left_out = {*places[place]()}, reasons[place]
    assert not [name for name in names if name not in found and name not in left_out], 'missing, without a reason'
    assert not [name for name in left_out if name in found], 'there all the same'
    assert left_out.keys() <= {*names}
    assert all(left_out.values())


def test_the_filters_beside_the_list_are_those_that_are_chosen_from_something():
    offered = {filter_name(name) for name in NAMES if is_switch(name) or field(name).choices}
    assert offered <= WebhookFilterForm.base_fields.keys()
    assert WebhookFilterForm.base_fields.keys() & {'object_type_id', 'ignore_user_id', 'notification_group_id', 'tag'}
    # An unknown filter would do nothing.
    assert {filter_name(name) for name in NAMES} & WebhookFilterForm.base_fields.keys() <= (
        WebhookFilterSet.base_filters.keys()
    )


def test_the_api_describes_every_field_as_the_forms_do():
    described = {name: str(one.help_text or '') for name, one in WebhookSerializer().fields.items()}
    helps = {name: str(help_of(name)) for name in PLACES['help']()}
    assert helps == {name: described[name] for name in helps}
    for form in (WebhookForm(), AdminForm()):
        assert helps == {name: str(form.fields[name].help_text) for name in helps}


def test_both_forms_have_the_same_groups_in_the_same_order(admin_pages):
    titles = [str(group.title) for group in GROUPS]
    shown = admin_pages.get(NEW).content.decode()
    assert re.findall(r'<h2 class="(?:col-9 offset-3|d-inline)">([^<]+)</h2>', shown) == titles
    groups = admin_pages.get(ADD).context['adminform'].fieldsets
    assert [str(title) for title, _options in groups] == titles
    names = flatten_fieldsets(groups)
    assert [name for name in names if name not in FORM_ONLY] == [*NAMES]


def unfolded(page: str) -> list[str]:
    return re.findall(r'<details class="field-group mb-3" open>\s*<summary[^>]*><h2[^>]*>([^<]+)', page)


def test_a_new_webhook_is_asked_for_what_everybody_needs(admin_pages):
    page = admin_pages.get(NEW)
    assert unfolded(page.content.decode()) == []
    assert page.content.decode().count('<details class="field-group mb-3"') == len(GROUPS) - 1
    assert [page.context['form'][name].value() for name in KINDS] == [True] * 3
    admin = admin_pages.get(ADD).context['adminform']
    assert [one.is_collapsible for one in admin] == [group.is_folded for group in GROUPS]
    assert [admin.form[name].value() for name in KINDS] == [True] * 3


def test_a_copy_has_the_kinds_of_what_it_is_a_copy_of(admin_pages):
    webhook = subscribe(NOWHERE, Site, kinds=('created',))
    page = admin_pages.get(f'{NEW}?{prepare_cloned_fields(webhook).urlencode()}')
    assert [bool(page.context['form'][name].value()) for name in KINDS] == [True, False, False]


@pytest.mark.parametrize(
    ('changed', 'title'),
    [
        ({'paused': True}, 'State and Tags'),
        ({'conditions': {'attr': 'name', 'value': 'x'}}, 'Only Some Changes'),
        ({'additional_headers': 'X-Env: prod'}, 'Request and Body'),
        ({'ordered': False}, 'Retries and Limits'),
        ({'ssl_verification': False}, 'TLS'),
    ],
)
def test_a_group_in_which_something_was_chosen_is_open(admin_pages, changed, title):
    webhook = subscribe(NOWHERE, Site, **{'only_real_changes': True} | changed)
    assert unfolded(admin_pages.get(f'{webhook.get_absolute_url()}edit/').content.decode()) == [title]
    admin = admin_pages.get(page_of(webhook)).context['adminform']
    assert [str(one.name) for one in admin if not one.is_collapsible] == ['None', 'Webhook', title]


def test_a_group_with_an_error_is_open(admin_pages):
    wrong = {'name': 'New', 'timeout': 0, 'client_key_path': '/etc/key.pem'}
    page = admin_pages.post(NEW, wrong)
    assert {'timeout', 'client_key_path'} <= page.context['form'].errors.keys()
    assert {'Retries and Limits', 'TLS'} <= {*unfolded(page.content.decode())}
    admin = admin_pages.post(ADD, wrong).context['adminform']
    assert {'Retries and Limits', 'TLS'} <= {str(one.name) for one in admin if not one.is_collapsible}
