from netbox.search import SearchIndex

from .models import Credential, Webhook


class WebhookIndex(SearchIndex):
    """Results show their matches, and URL and headers are masked."""

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
