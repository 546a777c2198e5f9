"""Lists webhooks, credentials and definitions in NetBox's global search."""

from netbox.search import SearchIndex

from .models import Credential, Definition, Webhook


class WebhookIndex(SearchIndex):
    """Finds webhooks by name and description only. A result would show a match in a URL or header, which are masked."""

    model = Webhook
    fields = (
        ('name', 100),
        ('description', 500),
    )
    display_attrs = ('description',)


class CredentialIndex(SearchIndex):
    """Finds credentials by name and description."""

    model = Credential
    fields = (
        ('name', 100),
        ('description', 500),
    )
    display_attrs = ('description',)


class DefinitionIndex(SearchIndex):
    """Finds definitions by name and path."""

    model = Definition
    fields = (
        ('name', 100),
        ('path', 500),
    )
    display_attrs = ('data_source', 'path')


indexes = [WebhookIndex, CredentialIndex, DefinitionIndex]
