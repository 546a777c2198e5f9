from typing import Any

from core.models import ObjectType
from dcim.models import Site
from extras.models import CustomField, CustomFieldChoiceSet
from support.admin_browser import ADD, filled, page_of, shown
from support.builders import NOWHERE, site, subscribe

from webhooks.models import Webhook


def custom(name: str, kind: str = 'text', **fields: Any) -> CustomField:
    made = CustomField.objects.create(name=name, type=kind, **fields)
    made.object_types.add(ObjectType.objects.get_for_model(Webhook))
    return made


def names_of(page: Any) -> set[str]:
    form = page.context['adminform'].form
    return {name for name in form.fields if name.startswith('cf_')}


def test_without_any_there_is_no_group(admin_pages):
    assert 'Custom Fields' not in admin_pages.get(ADD).content.decode()
    custom('owner')
    assert 'Custom Fields' in admin_pages.get(ADD).content.decode()


def test_one_that_is_required_is_asked_for_by_its_name(admin_pages):
    custom('owner', required=True)
    assert names_of(admin_pages.get(ADD)) == {'cf_owner'}
    answer = admin_pages.post(ADD, filled())
    assert 'cf_owner' in answer.context['adminform'].form.errors
    assert not Webhook.objects.exists()
    answer = admin_pages.post(ADD, filled(cf_owner='Network team'))
    assert answer.status_code == 302, answer.context['adminform'].form.errors
    assert Webhook.objects.get().cf == {'owner': 'Network team'}


def test_one_begins_with_its_default(admin_pages):
    custom('owner', default='Network team')
    assert admin_pages.get(ADD).context['adminform'].form['cf_owner'].value() == 'Network team'


def test_choices_and_objects_are_chosen_without_the_scripts_of_netbox(admin_pages):
    choices = CustomFieldChoiceSet.objects.create(name='Tiers', extra_choices=[['gold', 'Gold'], ['tin', 'Tin']])
    custom('tier', 'select', choice_set=choices)
    custom('tiers', 'multiselect', choice_set=choices)
    custom('place', 'object', related_object_type=ObjectType.objects.get_for_model(Site))
    custom('places', 'multiobject', related_object_type=ObjectType.objects.get_for_model(Site))
    # Stored in the order of their names.
    basel, bern = site(name='Basel'), site(name='Bern')
    page = admin_pages.get(ADD).content.decode()
    assert page.count('>Gold</option>') == page.count('>Bern</option>') == 2
    chosen = {'cf_tier': 'tin', 'cf_tiers': ['gold', 'tin'], 'cf_place': bern.pk, 'cf_places': [basel.pk, bern.pk]}
    answer = admin_pages.post(ADD, filled(**chosen))
    assert answer.status_code == 302, answer.context['adminform'].form.errors
    assert Webhook.objects.get().custom_field_data == {
        name.removeprefix('cf_'): value for name, value in chosen.items()
    }


def test_custom_fields_that_nobody_changes_keep_their_values(admin_pages):
    custom('owner')
    custom('extra', 'json')
    webhook = subscribe(NOWHERE, Site, custom_field_data={'owner': 'Network team', 'extra': {'a': 1}})
    answer = admin_pages.post(page_of(webhook), shown(admin_pages, webhook) | {'description': 'changed'})
    assert answer.status_code == 302, answer.context['adminform'].form.errors
    webhook.refresh_from_db()
    assert webhook.description == 'changed'
    assert webhook.custom_field_data == {'owner': 'Network team', 'extra': {'a': 1}}


def test_one_that_is_hidden_is_neither_shown_nor_lost(admin_pages):
    custom('secretly', ui_editable='hidden')
    webhook = subscribe(NOWHERE, Site, custom_field_data={'secretly': 'kept'})
    assert 'secretly' not in admin_pages.get(page_of(webhook)).content.decode()
    assert admin_pages.post(page_of(webhook), shown(admin_pages, webhook)).status_code == 302
    webhook.refresh_from_db()
    assert webhook.custom_field_data == {'secretly': 'kept'}
