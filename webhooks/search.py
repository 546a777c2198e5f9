from netbox.search import SearchIndex

from .models import Credential, Webhook


class WebhookIndex(SearchIndex):
    """No URL or headers: results show their matches, and those are masked."""

    model = Webhook
    fields = (
        ('name', 100),
        ('description', 500),
    )
    display_attrs = ('description',)


class CredentialIndex(SearchIndex):
    model = Credential
    fields = (
        ('name', 100),
        ('description', 500),
    )
    display_attrs = ('description',)


indexes = [WebhookIndex, CredentialIndex]
