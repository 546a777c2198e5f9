class WebhooksError(Exception):
    """Base class of all errors."""


class DefinitionError(WebhooksError):
    """`field` is the wrong field's name, str() the reason."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field


class DecryptionError(WebhooksError):
    """The secret's key is no longer in `encryption_keys`."""


class Busy(WebhooksError):
    """Others do the same just now, or somebody holds what a person's request needs: str() says what to do."""


class DeliveryFailed(WebhooksError):
    """Raised by a failed redelivery's job, so RQ lists it as failed again."""
