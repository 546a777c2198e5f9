"""Builds the HTTP request, or the broker's message, of a delivery: URL, headers, body, signatures and credential."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from urllib.parse import quote, unquote, urlsplit

from django.utils.translation import gettext as _
from utilities.jinja2 import JINJA2_TEMPLATE_RE

from ..brokers import address
from ..exceptions import DecryptionError, DefinitionError
from ..models import Delivery, Event, Webhook
from ..security import echoes, references, signing
from ..security.masking import MASK, mask_url
from ..security.references import SecretUnavailable
from ..templating import renderer
from ..templating.errors import RenderError
from ..templating.placeholders import MARK_NAME, Placeholders, placeholder
from ..transport.exchange import Request
from ..validation.credential import check_host
from ..validation.headers import check_header_name, check_header_value, check_sizes, parse_headers
from ..validation.secret import check_signs, reveal
from ..validation.url import check_rendered_url
from . import answers, formats
from .authorization import USER_AGENT, Authorization, Authorizer, TokenRequest, basic_login, encoded, proxies_for
from .change_set import part_of

AUTHORIZATION_HEADER = 'authorization'
# A request to a broker has this in place of an HTTP method.
PUBLISH_METHOD = 'PUBLISH'
# In lower case.
SIGNATURE_HEADERS = ('webhook-signature', 'x-hook-signature')

# Returns the templates' context as JSON.
Context = Callable[[], str]


class Builder:
    """Builds the requests of a webhook's deliveries. It reads the definition once, so a saved webhook needs a new one.

    For a preview credentials are masks, and no token is fetched. Members raise DefinitionError for a wrong definition.
    """

    def __init__(self, webhook: Webhook, *, is_preview: bool = False) -> None:
        self.webhook = webhook
        self._is_preview = is_preview

    def build(self, delivery: Delivery, now: float, events: Sequence[Event] = ()) -> Request:
        """Return the attempt's request, or a request for the access token to send first.

        `now` is in Unix seconds; `events` belong to all deliveries of a part. May write the row of the access token.
        Raises DefinitionError, SecretUnavailable, TokenPending and Shortage.
        """
        webhook, events = self.webhook, events or [delivery.event_as_sent]
        _check_rendered(events)
        authorization = self._authorizer.preview() if self._is_preview else self._authorizer.authorize()
        if isinstance(authorization, TokenRequest):
            return authorization
        expand = webhook.expand if delivery.expanded else []
        part = part_of(webhook, delivery, len(events))
        shown_url, shown_body = '', None
        if self.is_templated:
            target, body, shown_url, shown_body = self._render(delivery, int(now), events, expand, authorization)
        else:
            target, body = self._plain_target, formats.body(webhook, events, expand, part)
        signatures = _signatures(self._secrets, str(delivery.uuid), int(now), body) if webhook.standard_headers else {}
        return Request(
            method=PUBLISH_METHOD if self.is_to_broker else webhook.http_method,
            url=target.url,
            shown_url=shown_url,
            shown_body=shown_body,
            headers=_merged(
                _trace(events),
                {'Content-Type': formats.content_type(webhook, part), 'User-Agent': USER_AGENT},
                target.headers,
                authorization.headers,
                signatures,
            ),
            body=body,
            timeout=webhook.effective_timeout,
            verify=(webhook.ca_file_path or True) if webhook.ssl_verification else False,
            certificate=_certificate(webhook),
            proxies=target.proxies,
            judge=self._judge,
            secrets=(*target.secrets, *authorization.secrets, *_of_signatures(signatures)),
            key=formats.key(webhook, events) if self.is_to_broker else '',
            id=str(delivery.uuid),
        )

    def forget_token(self, request: Request) -> bool:
        """End the token that the endpoint refused in this request. Return whether a new one may help."""
        return self._authorizer.forget(request)

    def _render(
        self, delivery: Delivery, now: int, events: Sequence[Event], expand: formats.Keys, authorization: Authorization
    ) -> 'tuple[_Target, bytes, str, bytes | None]':
        """Render the templates, and return URL and headers, the body, and URL and body masked.

        The masked URL is '' if the URL holds no credential, the masked body None if the body has no template.
        """
        webhook, placeholders = self.webhook, Placeholders()
        part = part_of(webhook, delivery, len(events))
        more: dict[str, object] = {
            'webhook_id': str(delivery.uuid),
            'webhook_timestamp': now,
            MARK_NAME: placeholders.mark,
        }
        if authorization.values:
            more['credential'] = {
                name: placeholder(placeholders.mark, 'credential', name) for name in authorization.values
            }
        context = cache(partial(formats.template_context, webhook, events, expand, more, part))
        with renderer.together():
            text = _render('body_template', webhook.body_template, context) if webhook.body_template else None
            url = _url(webhook, context)
            headers = _headers(self._lines, context, url, self._read)
        # A secret could make the host, too. So the host is checked before secrets are filled in.
        self._check_host(url)
        content_type = formats.content_type(webhook, part)
        shown_body = None
        if text is None:
            body = formats.body(webhook, events, expand, part)
        else:
            shown_body = placeholders.fill(text, lambda _key: MASK).encode()
            in_body = partial(_value, 'body_template', authorization, partial(encoded, content_type=content_type))
            body = placeholders.fill(text, in_body).encode()
        whole = placeholders.fill(url, partial(_value, 'payload_url', authorization, partial(quote, safe='')))
        if url:  # a feed has none
            check_rendered_url(whole, _template(webhook))
        shown = placeholders.fill(url, lambda _key: MASK)
        sign = partial(_sign, self._secrets, now, body)
        filled = {
            name: placeholders.fill(value, partial(_in_header, authorization, sign)) for name, value in headers.items()
        }
        shown_url = mask_url(shown, webhook.secret_path) if shown != whole else ''
        return self._target(whole, filled), body, shown_url, shown_body

    def _check_host(self, url: str) -> None:
        """Raise DefinitionError unless the webhook's credential may go to the URL's host."""
        if self.webhook.credential:
            check_host(self.webhook.credential, url, verified=self.webhook.ssl_verification)

    def mask(self, request: Request) -> tuple[str, dict[str, str]]:
        """Return the request's URL and headers, masked for pages and the log. Raises DefinitionError."""
        secret = self._secret_names
        headers = {name: MASK if name.lower() in secret else value for name, value in request.headers.items()}
        return request.shown_url or mask_url(request.url, self.webhook.secret_path), headers

    @cached_property
    def _authorizer(self) -> Authorizer:
        return Authorizer(self.webhook)

    @cached_property
    def is_to_broker(self) -> bool:
        """Return whether the webhook publishes to a broker."""
        return address.split(self.webhook.masked_url) is not None

    @cached_property
    def is_templated(self) -> bool:
        """Return whether URL, headers or body have a template, or a secret is a reference. A thread then builds the
        request.

        A text that cannot be decrypted or parsed does not count: building fails anyway.
        """
        webhook = self.webhook
        try:
            texts = (webhook.payload_url.reveal(), webhook.additional_headers.reveal())
            if webhook.body_template or any(map(JINJA2_TEMPLATE_RE.search, texts)):
                return True
            return any(map(references.is_reference, (*webhook.secrets(), *(value for _name, value in self._lines))))
        except (DecryptionError, DefinitionError):
            return bool(webhook.body_template)

    @cached_property
    def _judge(self) -> answers.Judge:
        try:
            return answers.judge_by(self.webhook.success_conditions)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # a script may have saved them unchecked
            raise DefinitionError('success_conditions', str(error)) from error

    @cached_property
    def _lines(self) -> list[tuple[str, str]]:
        # A feed sends no request. Web processes read it, and secrets by reference are for workers only.
        if self.webhook.is_feed:
            return []
        return list(parse_headers(reveal('additional_headers', self.webhook.additional_headers)))

    @cached_property
    def _secret_names(self) -> set[str]:
        header = self.webhook.credential.header.lower() if self.webhook.credential else ''
        return {AUTHORIZATION_HEADER, header, *(name.lower() for name, _value in self._lines)}

    @property
    def _secrets(self) -> list[str]:
        """Return the secret, and the previous one while it is valid: none of a feed.

        Raises DefinitionError if a key is missing, and SecretUnavailable.
        """
        if self.webhook.is_feed:
            return []
        reveal('secret', self.webhook.secret)
        try:
            stored = self.webhook.secrets()
        except DecryptionError:
            stored = [reveal('previous_secret', self.webhook.previous_secret)]
        secrets = list(map(self._read, stored))
        if secrets != stored:
            _check_keys(stored, secrets)
        return secrets

    def _read(self, text: str) -> str:
        """Return the secret that a reference names, or the text itself. A preview reads none: the web host may not
        have it.
        """
        return MASK if self._is_preview and references.is_reference(text) else references.read(text)

    @cached_property
    def _plain_target(self) -> '_Target':
        """Return URL and headers of a webhook without templates. They are the same for all its requests."""
        url = _template(self.webhook)
        self._check_host(url)
        if self.is_to_broker:
            check_rendered_url(url, url)
        return self._target(url, _headers(self._lines, cache(str), url, self._read))

    def _target(self, url: str, headers: dict[str, str]) -> '_Target':
        check_sizes(headers.items())
        bare = [secret.partition('_')[2] for secret in self._secrets]
        in_url = echoes.of_url(url, self.webhook.secret_path)
        proxies = {} if self.is_to_broker else proxies_for(self.webhook, url)
        of_proxies = echoes.of_proxies(proxies.values())
        secrets = (*self._secrets, *bare, *in_url, *echoes.of_headers(headers.values()), *of_proxies)
        return _Target(url, headers, proxies, secrets)


@dataclass(frozen=True)
class _Target:
    """Where a request goes, rendered. `secrets` are masked in the answer."""

    url: str
    headers: Mapping[str, str]
    proxies: Mapping[str, str]
    secrets: tuple[str, ...]


def mask_signatures(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with masks for signatures.

    A secret that somebody typed could be guessed offline with the body and a part of its signature.
    """
    return {name: MASK if name.lower() in SIGNATURE_HEADERS else value for name, value in headers.items()}


def _check_keys(stored: Sequence[str], secrets: Sequence[str]) -> None:
    """Raise SecretUnavailable if a secret that was read from a reference cannot sign."""
    for reference, secret in zip(stored, secrets, strict=True):
        try:
            signing.check(secret)
        except ValueError as error:
            raise SecretUnavailable(f'{reference}: {error}') from None


def _check_rendered(events: Sequence[Event]) -> None:
    """Raise DefinitionError, with the event's error, if an event has no data."""
    for event in events:
        if not event.data:
            raise DefinitionError('data', event.error or _('The event has no data yet.'))


# URL and headers.


def _url(webhook: Webhook, context: Context) -> str:
    template = _template(webhook)
    if not JINJA2_TEMPLATE_RE.search(template):
        return template
    url = _render('payload_url', template, context, renderer.render_url).strip()
    check_rendered_url(url, template)
    return url


def _template(webhook: Webhook) -> str:
    return reveal('payload_url', webhook.payload_url)


def _headers(
    lines: Sequence[tuple[str, str]], context: Context, url: str, read: Callable[[str], str]
) -> dict[str, str]:
    """Return the additional headers with rendered values, and the URL's basic login if they set no other.

    They are rendered one by one, so an object's data cannot add a header.
    """
    own = {name: _header_value(name, value, context, read) for name, value in lines}
    return own if AUTHORIZATION_HEADER in map(str.lower, own) else {**_login(url), **own}


def _merged(*headers: Mapping[str, str]) -> dict[str, str]:
    """Return all headers. A later one replaces an earlier one of the same name, in any case of letters.

    requests' CaseInsensitiveDict would take a tenth of a delivery's time.
    """
    by_name = {name.lower(): (name, value) for some in headers for name, value in some.items()}
    return dict(by_name.values())


def _login(url: str) -> dict[str, str]:
    """Return the header of the basic login in the URL, or {}."""
    parts = urlsplit(url)
    return {} if parts.username is None else basic_login(unquote(parts.username), unquote(parts.password or ''))


def _header_value(name: str, value: str, context: Context, read: Callable[[str], str]) -> str:
    check_header_name(name)
    if references.is_reference(value):
        rendered = read(value)
    elif JINJA2_TEMPLATE_RE.search(value):
        rendered = _render('additional_headers', value, context).strip()
    else:
        return value
    check_header_value(name, rendered)
    return rendered


def _render(field: str, template: str, context: Context, render: Callable[[str, str], str] = renderer.render) -> str:
    try:
        return render(template, context())
    except RenderError as error:
        raise DefinitionError(field, str(error)) from error


def _of_signatures(signatures: Mapping[str, str]) -> Iterator[str]:
    for name, value in signatures.items():
        if name.lower() in SIGNATURE_HEADERS:
            yield from echoes.of_signature(value)


def _trace(events: Sequence[Event]) -> Mapping[str, str]:
    """Return the trace headers of the first event that has any."""
    return next((event.trace for event in events if event.trace), {})


def _signatures(secrets: Sequence[str], delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks, and NetBox's signature. Without a secret there are no signatures."""
    headers = {'webhook-id': delivery_id, 'webhook-timestamp': str(timestamp)}
    if secrets:
        headers['webhook-signature'] = signing.standard(secrets, delivery_id, timestamp, body)
        if not signing.is_asymmetric(secrets[0]):
            headers['X-Hook-Signature'] = signing.netbox(secrets[0], body)
    return headers


def _value(field: str, authorization: Authorization, encode: Callable[[str], str], key: str) -> str:
    """Return the text for a placeholder in URL or body. Raises DefinitionError for hmac()."""
    kind, _dash, name = key.partition('-')
    if kind != 'credential':
        raise DefinitionError(field, _('hmac() is for headers only: it signs the body.'))
    return encode(authorization.values.get(name, ''))


def _in_header(authorization: Authorization, sign: Callable[[str], str], key: str) -> str:
    """Return the text for a placeholder in a header: a credential's value, or a signature."""
    kind, _dash, name = key.partition('-')
    return authorization.values.get(name, '') if kind == 'credential' else sign(key)


def _sign(secrets: Sequence[str], timestamp: int, body: bytes, key: str) -> str:
    """Return the signature for a placeholder of hmac(). Raises DefinitionError if the secret cannot sign so."""
    _hmac, algorithm, encoding, over, which = key.split('-')
    check_signs(secrets[0] if secrets else '')
    signed = body if over == 'body' else b'%d.%b' % (timestamp, body)
    # A receiver that checks hmac() knows only one secret: the template says whether that is the old one.
    return signing.plain(secrets[-1 if which == 'old' else 0], signed, algorithm, encoding)


def _certificate(webhook: Webhook) -> tuple[str, str] | None:
    """Return the paths of certificate and key, or None. They may be one file.

    Always both: only in a file for the key urllib3 finds that the key is encrypted. Otherwise OpenSSL would ask at the
    terminal for a passphrase, and a request waits there beyond its deadline.
    """
    certificate = webhook.client_cert_path
    return (certificate, webhook.client_key_path or certificate) if certificate else None
