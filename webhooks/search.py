from netbox.search import SearchIndex

from .models import Webhook


class WebhookIndex(SearchIndex):
    """Neither URL nor headers: what they hold is masked, and search results show what they found."""

    model = Webhook
    fields = (
        ('name', 100),
        ('description', 500),
    )
    display_attrs = ('description',)


indexes = [WebhookIndex]
