"""Checks credentials, and whether they may go to a webhook's host."""

import re
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..choices import CredentialTypeChoices
from ..constants import RESERVED_HEADERS
from ..exceptions import DefinitionError
from ..security.masking import MASK
from .definition import Definition, errors_of
from .headers import check_header_name, check_header_value, parse_headers
from .secret import check_reference, reveal
from .tls import check_file
from .url import before_template, check_plain_url, origin_of

MAX_HOSTS = 50
# A signed token may be long.
MAX_CREDENTIAL_CHARS = 8192
# Scheme, host and perhaps port, in lower case.
ORIGIN = re.compile(r'https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?')
# A template that uses a credential.
CREDENTIAL_IN_TEMPLATE = re.compile(r'\{[{%][^{}]*\bcredential\.(token|username|password)\b')
# If `goes_elsewhere`, the credential's form and the API show this at `secret`.
ELSEWHERE = gettext_lazy('Enter the secret again: it would be sent to another place.')
# By type of credential.
NEEDED_FIELDS = {
    CredentialTypeChoices.BASIC: ('username', 'secret'),
    CredentialTypeChoices.BEARER: ('secret',),
    CredentialTypeChoices.HEADER: ('header', 'secret'),
    CredentialTypeChoices.OAUTH2_BASIC: ('username', 'secret', 'token_url'),
    CredentialTypeChoices.OAUTH2_BODY: ('username', 'secret', 'token_url'),
    CredentialTypeChoices.TEMPLATE: ('secret',),
}


class Bound(Protocol):
    """A credential's fields. `hosts` are origins, such as https://awx.example.com; `secret` has `reveal()`."""

    type: str
    hosts: list[str]
    username: str
    header: str
    secret: Any
    token_url: str
    ca_file_path: str


def errors(credential: Bound) -> dict[str, str]:
    """Check a credential, and return {field: reason}, empty if all is well. `Credential.clean` calls it."""
    return errors_of(credential, (_check_needed, _check_hosts, _check_header, _check_secret, _check_token_url))


def _check_needed(credential: Bound) -> None:
    for name in NEEDED_FIELDS.get(credential.type, ()):
        if not getattr(credential, name):
            raise DefinitionError(name, _('A credential of this type requires it.'))
    if credential.type == CredentialTypeChoices.BASIC and ':' in credential.username:
        raise DefinitionError('username', _('Remove the colon.'))


def _check_hosts(credential: Bound) -> None:
    if not credential.hosts:
        raise DefinitionError('hosts', _('Enter a host.'))
    if len(credential.hosts) > MAX_HOSTS:
        raise DefinitionError('hosts', _('No more than {limit} hosts are allowed.').format(limit=MAX_HOSTS))
    for host in credential.hosts:
        if not ORIGIN.fullmatch(host) or origin_of(host) is None:
            raise DefinitionError('hosts', _('{host} is not a host such as awx.example.com.').format(host=host))


def _check_header(credential: Bound) -> None:
    if credential.type != CredentialTypeChoices.HEADER or not credential.header:
        return
    try:
        ((name, _value),) = parse_headers(f'{credential.header}: x')
        if name != credential.header or name.lower() in RESERVED_HEADERS:
            raise ValueError
        check_header_name(name)
    except (DefinitionError, ValueError):
        raise DefinitionError('header', _('A webhook cannot set this header.')) from None


def _check_secret(credential: Bound) -> None:
    """Raise DefinitionError unless the secret can be sent. Only a bearer token or a header sends it unencoded."""
    secret = reveal('secret', credential.secret)
    if len(secret) > MAX_CREDENTIAL_CHARS:
        raise DefinitionError(
            'secret', _('A secret can have no more than {number} characters.').format(number=MAX_CREDENTIAL_CHARS)
        )
    if secret == MASK:
        raise DefinitionError('secret', _('Enter the secret itself, or leave it out to keep it.'))
    check_reference('secret', secret)
    goes_raw = credential.type in (CredentialTypeChoices.BEARER, CredentialTypeChoices.HEADER)
    check_header_value('secret', secret if goes_raw else secret.encode('ascii', 'replace').decode(), 'secret')


def _check_token_url(credential: Bound) -> None:
    if credential.type not in CredentialTypeChoices.OAUTH2 or not credential.token_url:
        return
    check_plain_url(credential.token_url, 'token_url')
    parts = urlsplit(credential.token_url)
    if '@' in parts.netloc or parts.query or parts.fragment:
        raise DefinitionError('token_url', _('Enter a URL without user, query and fragment.'))
    check_file('ca_file_path', credential.ca_file_path)


def normalized(host: str) -> str:
    """Return the host as an origin, in lower case: https:// is added, and a default port left out.

    A text that is no host comes back in lower case, for `errors` to refuse.
    """
    text = host.strip().rstrip('/').lower()
    text = text if '://' in text else f'https://{text}'
    return (origin_of(text) if ORIGIN.fullmatch(text) else None) or text


def goes_elsewhere(before: Bound, after: Bound) -> bool:
    """Return whether a changed credential would send its secret to another place: its editor has to enter it again.

    `before` is the stored credential, `after` the changed one, with the same secret.
    """
    if not set(after.hosts) <= set(before.hosts):
        return True
    kinds = {before.type, after.type}
    if kinds.isdisjoint(CredentialTypeChoices.OAUTH2):
        return False
    # If these change, the token's server may get a secret of the hosts, or the hosts a secret of the token's server.
    return any(getattr(before, name) != getattr(after, name) for name in ('type', 'token_url', 'ca_file_path'))


def check(definition: Definition) -> None:
    """Raise DefinitionError if the credential is not for the webhook's host, or is missing though a template needs it.

    If a template makes the host, it is checked when it is rendered.
    """
    if not definition.credential:
        hidden = [reveal(name, getattr(definition, name)) for name in ('payload_url', 'additional_headers')]
        if any(map(CREDENTIAL_IN_TEMPLATE.search, (definition.body_template, *hidden))):
            raise DefinitionError('credential', _('Choose one: a template needs it.'))
        return
    fixed = before_template(reveal('payload_url', definition.payload_url))
    # If a template makes the host, each request is checked.
    if fixed is not None:
        check_host(definition.credential, fixed, verified=definition.ssl_verification)


def check_host(credential: Bound, url: str, *, verified: bool) -> None:
    """Raise DefinitionError unless the credential may go to the URL's host.

    If TLS is not `verified`, only a host that was entered with http:// gets it.
    """
    origin = origin_of(url, verified=verified)
    if origin in credential.hosts:
        return
    if origin and not verified and (safe := origin_of(url)) in credential.hosts:
        text = _(
            'This credential is for {safe} with TLS verification. Turn verification on, or add {host} to the hosts of '
            'the credential.'
        )
        raise DefinitionError('credential', text.format(safe=safe, host=origin))
    text = _('This credential may not be sent to this host. Add {host} to the hosts of the credential.')
    raise DefinitionError('credential', text.format(host=origin or MASK))
