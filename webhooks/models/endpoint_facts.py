"""Where a webhook's requests go, how long they may take, and whether any webhook has a template."""

from typing import Any

from django.conf import settings
from django.db import connection

from ..validation.headers import mask_headers
from .fields import SEALED_MARK

# Read whether any enabled webhook has a template, or conditions with regular expressions. A sealed URL may have one.
IS_ANY_TEMPLATED = f"""
    SELECT EXISTS (SELECT FROM webhooks_webhook
        WHERE enabled AND (body_template <> '' OR payload_url LIKE '%{{%' OR payload_url LIKE '%{SEALED_MARK}%'
                           OR conditions::text LIKE '%"regex"%'))"""


class EndpointFacts:
    """Answers these questions for Webhook, but for the last without a query."""

    payload_url: Any
    additional_headers: Any
    timeout: Any

    @property
    def is_feed(self) -> bool:
        """Whether receivers read its changes from NetBox: it has no URL."""
        return not self.payload_url

    @property
    def masked_url(self) -> str:
        """Return the URL without its secrets, for people. '' for a feed."""
        return str(self.payload_url)

    @property
    def masked_headers(self) -> str:
        """Return the additional headers with masked values, one a line."""
        return mask_headers(self.additional_headers)

    @property
    def effective_timeout(self) -> int:
        """Return the seconds that a request may take: the webhook's own, or NetBox's default."""
        return self.timeout or settings.WEBHOOK_DEFAULT_TIMEOUT

    @classmethod
    def any_is_templated(cls) -> bool:
        """Whether workers need a renderer. Headers are encrypted, so templates in them do not count."""
        with connection.cursor() as cursor:
            cursor.execute(IS_ANY_TEMPLATED)
            return cursor.fetchone()[0]
