class WebhooksError(Exception):
    pass


class DefinitionError(WebhooksError):
    """`field` is the wrong field's name, str() the reason."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field


class DecryptionError(WebhooksError):
    """The secret's key is no longer in `encryption_keys`."""


class Busy(WebhooksError):
    """str() says what to do."""


class DeliveryFailed(WebhooksError):
    """RQ lists the redelivery's job as failed again."""
