"""Where a webhook's requests go, and how long they may take, as people and workers ask for it."""

from typing import Any

from django.conf import settings

from ..validation.headers import mask_headers


class EndpointFacts:
    """Answers these questions for Webhook, from its columns, without a query."""

    payload_url: Any
    additional_headers: Any
    timeout: Any

    @property
    def is_feed(self) -> bool:
        """Whether receivers read its changes from NetBox: it has no URL."""
        return not self.payload_url

    @property
    def masked_url(self) -> str:
        """The URL without its secrets, for people. '' for a feed."""
        return str(self.payload_url)

    @property
    def masked_headers(self) -> str:
        """The additional headers with masked values, one a line."""
        return mask_headers(self.additional_headers)

    @property
    def effective_timeout(self) -> int:
        """Seconds that a request may take: the webhook's own, or NetBox's default."""
        return self.timeout or settings.WEBHOOK_DEFAULT_TIMEOUT
