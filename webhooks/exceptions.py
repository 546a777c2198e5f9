"""Errors that the plugin raises itself. str() of each is a text for people."""

# The field of a DefinitionError about a state that does not allow the action. The REST API answers with 409.
STATE = 'state'


class WebhooksError(Exception):
    """The base of the plugin's errors."""


class DefinitionError(WebhooksError):
    """A webhook, credential or action is defined wrongly. `field` is the name of the wrong field."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field


class DecryptionError(WebhooksError):
    """A secret cannot be decrypted: its key is no longer in `encryption_keys`."""


class Busy(WebhooksError):
    """Something is in use at the moment, and a later try may succeed. str() says what to do."""


class DeliveryFailed(WebhooksError):
    """A redelivery from RQ's status page failed. Its job raises it, so that RQ lists the job as failed again."""


def reason_of(error: Exception) -> str:
    """Return the text of an error for people: of the plugin's own the sentence, of any other the class, too."""
    return str(error) if isinstance(error, WebhooksError) else f'{type(error).__name__}: {error}'
