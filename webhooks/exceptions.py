"""What can go wrong, by name."""


class WebhooksError(Exception):
    """Base class of the errors below."""


class DefinitionError(WebhooksError):
    """A webhook's definition cannot be used: `field` names the field, str() says why."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field


class DecryptionError(WebhooksError):
    """A stored secret was encrypted with a key that is no longer among `encryption_keys`."""


class DeliveryFailed(WebhooksError):
    """Raised by the job of a redelivery that failed, so that RQ lists it as failed again."""
