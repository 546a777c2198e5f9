"""Checks the URLs of brokers, and that their webhooks have no fields of HTTP."""

from django.utils.translation import gettext as _
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..brokers import address, registry
from ..brokers.address import Place
from ..exceptions import DefinitionError
from ..storable import UNPRINTABLE
from .definition import Definition
from .secret import reveal

# With a broker the operator sets logins and certificates, and there is no answer to judge.
HTTP_ONLY_FIELDS = ('credential', 'success_conditions', 'ca_file_path', 'client_cert_path', 'client_key_path')


def check_url(url: str) -> None:
    """Raise DefinitionError unless the URL names a broker of the settings, with its library and a valid address.

    If the address has a template, it is checked when it is rendered.
    """
    place = address.split(url)
    if place is None:
        raise DefinitionError('payload_url', _("Write the broker's name itself, not a template: nats://name/address."))
    try:
        broker = registry.find(place.driver, place.name)
        broker.check_library()
        if not JINJA2_TEMPLATE_RE.search(url):
            check_address(place, url)
    except registry.Unusable as error:
        raise DefinitionError('payload_url', str(error)) from None


def check_address(place: Place, url: str) -> None:
    """Raise DefinitionError unless the broker has this address and allows it. `url` is the whole URL, rendered.

    If the settings lack the broker now, this raises nothing: the webhook's deliveries wait.
    """
    if UNPRINTABLE.search(place.address):
        raise DefinitionError('payload_url', _('Enter an address without control characters.'))
    if '?' in url or '#' in url:
        raise DefinitionError(
            'payload_url',
            _(
                'Write ? and # in the address of a broker as %3F and %23. In a template, pass values that may '
                'contain them through urlencode, as in {{ data.name | urlencode }}.'
            ),
        )
    try:
        broker = registry.find(place.driver, place.name)
    except registry.Unusable:
        return
    try:
        broker.check_address(place.address)
    except registry.Unusable as error:
        raise DefinitionError('payload_url', str(error)) from None


def check(definition: Definition) -> None:
    """Raise DefinitionError if a webhook for a broker has a field that works only with HTTP."""
    if not address.is_broker(reveal('payload_url', definition.payload_url)):
        return
    for name in HTTP_ONLY_FIELDS:
        if getattr(definition, name):
            raise DefinitionError(
                name,
                _('This field does not apply to a broker: remove the value, or enter the URL of an HTTP endpoint.'),
            )
