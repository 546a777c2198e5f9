"""Checks URLs of brokers, and what a webhook cannot have with one."""

from django.utils.translation import gettext as _
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..brokers import address, registry
from ..brokers.address import Place
from ..exceptions import DefinitionError
from ..security.masking import whole_url
from ..storable import UNPRINTABLE
from .definition import Definition

# The operator sets logins and certificates, and a broker's confirmation is no answer.
OF_HTTP = ('credential', 'success_conditions', 'ca_file_path', 'client_cert_path', 'client_key_path')


def check_url(url: str) -> None:
    """Raises DefinitionError. Of a template the rest is checked when it is rendered."""
    place = address.split(url)
    if place is None:
        raise DefinitionError('payload_url', _("Write the broker's name itself, no template: nats://name/address."))
    try:
        broker = registry.find(place.driver, place.name)
        broker.check_library()
        if not JINJA2_TEMPLATE_RE.search(url):
            check_address(place, url)
    except registry.Unusable as error:
        raise DefinitionError('payload_url', str(error)) from None


def check_address(place: Place, url: str) -> None:
    """Check a whole address. Raises DefinitionError.

    A broker that is missing now is none of its faults: its deliveries wait.
    """
    if UNPRINTABLE.search(place.address):
        raise DefinitionError('payload_url', _('Enter an address without control characters.'))
    if '?' in url or '#' in url:
        raise DefinitionError('payload_url', _('Write ? and # in the address of a broker as %3F and %23.'))
    try:
        broker = registry.find(place.driver, place.name)
    except registry.Unusable:
        return
    try:
        broker.check_address(place.address)
    except registry.Unusable as error:
        raise DefinitionError('payload_url', str(error)) from None


def check(definition: Definition) -> None:
    if not address.is_broker(whole_url(definition.payload_url)):
        return
    for name in OF_HTTP:
        if getattr(definition, name):
            raise DefinitionError(name, _('A broker has none: remove it, or enter a URL of an HTTP endpoint.'))
