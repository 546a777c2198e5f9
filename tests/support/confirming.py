"""The page that asks before many deliveries are sent again."""

from django.http import HttpResponse
from django.test import Client

COUNTED_AT = '_counted_at'


def confirm(client: Client, asked: HttpResponse, *, follow: bool = False) -> HttpResponse:
    """Press *Redeliver* on the page."""
    assert asked.status_code == 200
    assert asked.context['figures'].count, 'there is nothing to redeliver'
    return client.post(address_of(asked), fields_of(asked), follow=follow)


def address_of(asked: HttpResponse) -> str:
    query = asked.request['QUERY_STRING']
    return asked.request['PATH_INFO'] + (f'?{query}' if query else '')


def fields_of(asked: HttpResponse) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in asked.context['kept']:
        fields.setdefault(name, []).append(value)
    return fields


def first_sentence(asked: HttpResponse) -> str:
    return asked.context['figures'].sentences[0]
