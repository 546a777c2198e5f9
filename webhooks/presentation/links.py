"""Addresses of NetBox's pages about our models."""

from django.urls import reverse
from django.utils.http import urlencode


def page_url(name: str, **query: object) -> str:
    """Return the address of a page with its query, such as `page_url('delivery_list', status='failed')`.

    A list of values is repeated.
    """
    address = reverse(f'plugins:webhooks:{name}')
    return f'{address}?{urlencode(query, doseq=True)}' if query else address
