"""The admin's pages, as a browser would use them."""

from typing import Any

from core.models import ObjectChange
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from webhooks.models import Delivery, Webhook

INDEX = '/admin/'
WEBHOOKS = '/admin/webhooks/webhook/'
ADD = f'{WEBHOOKS}add/'
DELIVERIES = '/admin/webhooks/delivery/'
MASK = '********'
INIT_TIME = r'<input type="hidden" name="_init_time" value="([0-9.]+)"'


def page_of(instance: Webhook | Delivery, view: str = 'change') -> str:
    return reverse(f'admin:{instance._meta.app_label}_{instance._meta.model_name}_{view}', args=[instance.pk])


def type_id(model: type[Model]) -> int:
    return ContentType.objects.get_for_model(model).pk


def filled(**changed: Any) -> dict[str, Any]:
    values = {
        'name': 'Receiver',
        'enabled': 'on',
        'object_types': [type_id(Site)],
        'type_create': 'on',
        'payload_url': 'https://a.example/hook',
        'http_method': 'POST',
        'http_content_type': 'application/json',
        'payload_format': 'default',
        'ssl_verification': 'on',
        'max_attempts': 8,
        'concurrency': 16,
        'ordered': 'on',
    }
    return {name: value for name, value in (values | changed).items() if value is not None}


def shown(client: Client, of: Webhook) -> dict[str, Any]:
    """Return the form data of an unchanged webhook."""
    form = client.get(page_of(of)).context['adminform'].form
    values = {name: form[name].value() for name in form.fields}
    return {name: value for name, value in values.items() if value not in (None, False)}


def messages_of(response: HttpResponse) -> list[str]:
    return [str(message) for message in response.context['messages']]


def run(client: Client, page: str, action: str, *chosen: Webhook | Delivery, **more: Any) -> HttpResponse:
    data = {'action': action, '_selected_action': [one.pk for one in chosen]}
    return client.post(page, data | more, follow=True)


def press(client: Client, instance: Webhook | Delivery, action: str) -> HttpResponse:
    """Press a button on the object's page."""
    page = client.get(page_of(instance))
    name = page.context['action_form']['action'].html_name
    return client.post(page_of(instance), {name: action, '_selected_action': instance.pk}, follow=True)


def changes_of(instance: Webhook) -> list[ObjectChange]:
    found = ObjectChange.objects.filter(changed_object_type=type_id(Webhook), changed_object_id=instance.pk)
    return list(found.order_by('time'))


def queries(client: Client, page: str) -> int:
    client.get(page)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(page).status_code == 200
    return len(captured)
