"""Builds the request of a delivery: URL, headers and body."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from urllib.parse import unquote, urlsplit

from django.utils.translation import gettext as _
from utilities.jinja2 import JINJA2_TEMPLATE_RE
from utilities.proxy import resolve_proxies

from ..exceptions import DecryptionError, DefinitionError
from ..models import Delivery, Event, Webhook
from ..security import echoes, signing
from ..security.masking import MASK, mask_url, whole_url
from ..templating import renderer
from ..templating.errors import RenderError
from ..transport.exchange import Request
from ..validation.headers import check_header_name, check_header_value, parse_headers
from ..validation.secret import reveal
from ..validation.url import check_rendered_url
from ..version import VERSION
from . import change_set, formats

AUTHORIZATION = 'authorization'
SIGNATURES = ('webhook-signature', 'x-hook-signature')
USER_AGENT = f'netbox-webhooks/{VERSION}'

# Returns the templates' context as JSON.
Context = Callable[[], str]


class Builder:
    """Makes requests from a webhook's definition, which it reads once.

    Members raise DefinitionError.
    """

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook

    def build(self, delivery: Delivery, now: float, events: Sequence[Event] = ()) -> Request:
        """Return the request of an attempt at `now` (Unix seconds). Raises DefinitionError.

        `events`: of all deliveries in the request, if there are several.
        """
        webhook, events = self.webhook, events or delivery.events()
        _check_rendered(events)
        expand = webhook.expand if delivery.expanded else []
        part = change_set.part_of(webhook, delivery)
        show = partial(change_set.body, part=part) if part else formats.body
        if self.is_templated:
            show_context = partial(change_set.template_context, part=part) if part else formats.template_context
            context = cache(partial(show_context, webhook, events, expand))
            with renderer.together():
                body = _template(webhook, context) if webhook.body_template else show(webhook, events, expand)
                url = _url(webhook, context)
                target = self._target(url, _headers(self._lines, context, url))
        else:
            body, target = show(webhook, events, expand), self._plain_target
        is_list = part is not None or formats.is_batch(webhook, events)
        signatures = _signatures(self._secrets, str(delivery.uuid), int(now), body)
        return Request(
            method=webhook.http_method,
            url=target.url,
            headers=_merged(
                {'Content-Type': formats.content_type(webhook, is_list=is_list), 'User-Agent': USER_AGENT},
                target.headers,
                signatures,
            ),
            body=body,
            timeout=webhook.effective_timeout,
            verify=(webhook.ca_file_path or True) if webhook.ssl_verification else False,
            certificate=_certificate(webhook),
            proxies=target.proxies,
            secrets=(*target.secrets, *_of_signatures(signatures)),
        )

    def mask(self, request: Request) -> tuple[str, dict[str, str]]:
        """Return a request's URL and headers, masked. Raises DecryptionError."""
        secret = self._secret_names
        headers = {name: MASK if name.lower() in secret else value for name, value in request.headers.items()}
        return mask_url(request.url, self.webhook.secret_path), headers

    @cached_property
    def is_templated(self) -> bool:
        """Whether a request needs a rendered template."""
        webhook = self.webhook
        if webhook.body_template or JINJA2_TEMPLATE_RE.search(whole_url(webhook.payload_url)):
            return True
        try:
            return bool(JINJA2_TEMPLATE_RE.search(webhook.additional_headers.reveal()))
        except DecryptionError:
            return False  # build() reports it

    @cached_property
    def _lines(self) -> list[tuple[str, str]]:
        return list(parse_headers(reveal('additional_headers', self.webhook.additional_headers)))

    @cached_property
    def _secret_names(self) -> set[str]:
        lines = parse_headers(self.webhook.additional_headers.reveal())
        return {AUTHORIZATION, *(name.lower() for name, _value in lines)}

    @cached_property
    def _secrets(self) -> list[str]:
        reveal('secret', self.webhook.secret)
        try:
            return self.webhook.secrets()
        except DecryptionError:
            return [reveal('previous_secret', self.webhook.previous_secret)]

    @cached_property
    def _plain_target(self) -> '_Target':
        url = whole_url(self.webhook.payload_url)
        return self._target(url, _headers(self._lines, cache(str), url))

    def _target(self, url: str, headers: dict[str, str]) -> '_Target':
        bare = [secret.partition('_')[2] for secret in self._secrets]
        in_url = echoes.of_url(url, self.webhook.secret_path)
        secrets = (*self._secrets, *bare, *in_url, *echoes.of_headers(headers.values()))
        proxies = resolve_proxies(url=url, context={'client': self.webhook}) or {}
        return _Target(url, headers, proxies, secrets)


@dataclass(frozen=True)
class _Target:
    """`secrets` are masked in the answer."""

    url: str
    headers: Mapping[str, str]
    proxies: Mapping[str, str]
    secrets: tuple[str, ...]


def mask_signatures(headers: Mapping[str, str]) -> dict[str, str]:
    """With a part of a signature, a typed secret could be guessed offline."""
    return {name: MASK if name.lower() in SIGNATURES else value for name, value in headers.items()}


def _check_rendered(events: Sequence[Event]) -> None:
    for event in events:
        if not event.data:
            raise DefinitionError('data', event.error or _('The event has not been rendered.'))


def _template(webhook: Webhook, context: Context) -> bytes:
    return _render('body_template', webhook.body_template, context).encode()


#
# URL and headers
#


def _url(webhook: Webhook, context: Context) -> str:
    url = whole_url(webhook.payload_url)
    if not JINJA2_TEMPLATE_RE.search(url):
        return url
    url = _render('payload_url', url, context, renderer.render_url).strip()
    check_rendered_url(url)
    return url


def _headers(lines: Sequence[tuple[str, str]], context: Context, url: str) -> dict[str, str]:
    """Values are rendered one by one: an object's data cannot add a header."""
    own = {name: _header_value(name, value, context) for name, value in lines}
    return own if AUTHORIZATION in map(str.lower, own) else {**_login(url), **own}


def _merged(*headers: Mapping[str, str]) -> dict[str, str]:
    """CaseInsensitiveDict would take a tenth of a delivery's time."""
    by_name = {name.lower(): (name, value) for some in headers for name, value in some.items()}
    return dict(by_name.values())


def _login(url: str) -> dict[str, str]:
    """RFC 7617."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    pair = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
    return {'Authorization': f'Basic {b64encode(pair.encode()).decode()}'}


def _header_value(name: str, value: str, context: Context) -> str:
    check_header_name(name)
    if not JINJA2_TEMPLATE_RE.search(value):
        return value
    rendered = _render('additional_headers', value, context).strip()
    check_header_value(name, rendered)
    return rendered


def _render(field: str, template: str, context: Context, render: Callable[[str, str], str] = renderer.render) -> str:
    try:
        return render(template, context())
    except RenderError as error:
        raise DefinitionError(field, str(error)) from error


def _of_signatures(signatures: Mapping[str, str]) -> Iterator[str]:
    for name, value in signatures.items():
        if name.lower() in SIGNATURES:
            yield from echoes.of_signature(value)


def _signatures(secrets: Sequence[str], delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    headers = {'webhook-id': delivery_id, 'webhook-timestamp': str(timestamp)}
    if secrets:
        headers['webhook-signature'] = signing.standard(secrets, delivery_id, timestamp, body)
        if not signing.is_asymmetric(secrets[0]):
            headers['X-Hook-Signature'] = signing.netbox(secrets[0], body)
    return headers


def _certificate(webhook: Webhook) -> str | tuple[str, str] | None:
    if webhook.client_cert_path and webhook.client_key_path:
        return webhook.client_cert_path, webhook.client_key_path
    return webhook.client_cert_path or None
