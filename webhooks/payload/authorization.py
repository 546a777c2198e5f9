"""Gives a request its credential: headers, and values for templates.

One worker fetches an OAuth2 token for all. Meanwhile other deliveries use the old token while it is valid, or go back
to the queue for a moment.
"""

import dataclasses
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus, urlencode

from django.utils import timezone
from django.utils.translation import gettext as _
from utilities.proxy import resolve_proxies

from ..choices import CredentialTypeChoices
from ..exceptions import WebhooksError
from ..models import AccessToken, Credential, Webhook
from ..security import echoes, references
from ..security.masking import MASK
from ..storable import storable
from ..transport.exchange import MAX_ERROR_CHARS, Answer, Outcome, Request
from ..validation.body import FORM_TYPE, is_form
from ..validation.secret import reveal
from ..version import VERSION

# The timeout of a request for a token.
TOKEN_REQUEST_SECONDS = 10
# If a worker dies while it fetches a token, the next may try after this time. It must not be while the request runs.
TOKEN_CLAIM = timedelta(seconds=TOKEN_REQUEST_SECONDS + 5)
# A token is fetched anew this long before it ends, or at half its life if that is later. The old one still works.
TOKEN_RENEWAL_LEAD = timedelta(minutes=1)
# In its last seconds a token is not used: it could expire on the way.
TOKEN_SAFETY_MARGIN = timedelta(seconds=5)
# If an endpoint refuses a token that is younger, the next would be refused too. So none is fetched.
NEW_TOKEN_PERIOD = timedelta(minutes=1)
# A token's validity if the server names none, and its bounds if it does.
DEFAULT_TOKEN_SECONDS = 300
MIN_TOKEN_SECONDS = 10
MAX_TOKEN_SECONDS = 86400
# An answer of a token's server with a longer token counts as a failure.
MAX_TOKEN_CHARS = 16 * 1024

USER_AGENT = f'netbox-webhooks/{VERSION}'


class TokenPending(WebhooksError):
    """Another worker is fetching the token, and the old one has expired. The delivery goes back to the queue."""


@dataclass(frozen=True)
class Authorization:
    """A credential for a request: `headers` to send, and `values` by their names in templates."""

    values: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the texts that are masked in the answer."""
        return (*self.values.values(), *echoes.of_headers(self.headers.values()))

    def masked(self) -> 'Authorization':
        """Return the same with masks for all values, for previews."""
        return Authorization(dict.fromkeys(self.values, MASK), dict.fromkeys(self.headers, MASK))


class Authorizer:
    """Gives the requests of a webhook their access. It keeps the row of the token between requests."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._credential: Credential | None = webhook.credential
        self._row: AccessToken | None = None

    def authorize(self) -> 'Authorization | TokenRequest':
        """Return the access for a request, or a request for a token that has to be sent first.

        May make the row of the token, read it, and claim it for TOKEN_CLAIM. Raises DefinitionError if the secret
        cannot be decrypted, SecretUnavailable and TokenPending.
        """
        credential = self._credential
        if credential is None:
            return Authorization()
        secret = references.read(reveal('credential', credential.secret))
        if not credential.is_oauth2:
            return _authorization(credential, secret)
        token, until = self._token(credential)
        return self._token_request(credential, secret, until) if until else _authorization(credential, token)

    def preview(self) -> Authorization:
        """Return the access with masks. Fetches no token, and reads no secret."""
        return _authorization(self._credential, MASK).masked() if self._credential else Authorization()

    def forget(self, request: Request) -> bool:
        """End the token of a request that the endpoint answered with 401. Return whether the request may go again.

        It goes again with another token, if one can be had: a token that is new is not ended.
        """
        if not (self._credential and self._credential.is_oauth2):
            return False
        row, now = self._row, timezone.now()
        if row is None or row.fetched_at is None or row.token.reveal_or_blank() not in request.secrets:
            return True  # another request has ended this token already
        if row.fetched_at <= now < row.fetched_at + NEW_TOKEN_PERIOD:
            return False
        self._row = None
        return row.end(now)

    def _token(self, credential: Credential) -> tuple[str, datetime | None]:
        """Return the token, or '' and the end of this worker's claim to fetch one. Raises TokenPending."""
        row, now = self._row, timezone.now()
        if row is None or now > _renewed_at(row):
            row, _created = AccessToken.objects.get_or_create(credential=credential)
            self._row = row
        # While keys are replaced, another process may have encrypted it with a key that this one does not know.
        token, until = row.token.reveal_or_blank(), now + TOKEN_CLAIM
        if now <= _renewed_at(row):
            return token, None
        if row.claim(now, until):
            return '', until
        if token and row.expires_at and now < row.expires_at - TOKEN_SAFETY_MARGIN:
            return token, None
        raise TokenPending

    def _token_request(self, credential: Credential, secret: str, until: datetime) -> 'TokenRequest':
        """Return the request of the client credentials grant (RFC 6749, 4.4)."""
        wanted = {'grant_type': 'client_credentials', 'scope': credential.scope, 'audience': credential.audience}
        login = {}
        if credential.type == CredentialTypeChoices.OAUTH2_BODY:
            wanted |= {'client_id': credential.username, 'client_secret': secret}
        else:
            # RFC 6749, 2.3.1: both are form-encoded before base64.
            login = basic_login(quote_plus(credential.username), quote_plus(secret))
        grant, proxies = Grant(credential.pk, until), proxies_for(self._webhook, credential.token_url)
        return TokenRequest(
            method='POST',
            url=credential.token_url,
            shown_url=credential.token_url,
            headers={'Content-Type': FORM_TYPE, 'Accept': 'application/json', 'User-Agent': USER_AGENT, **login},
            body=urlencode({name: value for name, value in wanted.items() if value}).encode(),
            timeout=TOKEN_REQUEST_SECONDS,
            verify=credential.ca_file_path or True,
            proxies=proxies,
            judge=grant.judge,
            secrets=(secret, *echoes.of_headers(login.values()), *echoes.of_proxies(proxies.values())),
            grant=grant,
        )


def _renewed_at(row: AccessToken) -> datetime:
    """Return when the next token is fetched: before the end of this one, or at once without a usable one."""
    if row.expires_at is None or row.fetched_at is None or not row.token.reveal_or_blank():
        return timezone.now() - TOKEN_RENEWAL_LEAD
    return row.expires_at - min(TOKEN_RENEWAL_LEAD, (row.expires_at - row.fetched_at) / 2)


def _authorization(credential: Credential, secret: str) -> Authorization:
    match credential.type:
        case CredentialTypeChoices.BASIC:
            values = {'username': credential.username, 'password': secret}
            return Authorization(values, basic_login(credential.username, secret))
        case CredentialTypeChoices.HEADER:
            return Authorization({'token': secret}, {credential.header: secret})
        case CredentialTypeChoices.TEMPLATE:
            return Authorization({'token': secret})
        case _:
            return Authorization({'token': secret}, {'Authorization': f'Bearer {secret}'})


def proxies_for(webhook: Webhook, url: str) -> Mapping[str, str]:
    """Return the proxies for the URL, by scheme. NetBox's proxy routers choose them, and may look at the webhook."""
    return resolve_proxies(url=url, context={'client': webhook}) or {}


def basic_login(user: str, password: str) -> dict[str, str]:
    """Return the header of a basic login (RFC 7617)."""
    return {'Authorization': f'Basic {b64encode(f"{user}:{password}".encode()).decode()}'}


@dataclass
class Grant:
    """A claim to fetch a token, and then the token with its validity in `seconds`.

    `until` is the end of the claim, and identifies it.
    """

    credential_id: int
    until: datetime
    token: str = field(default='', repr=False)
    seconds: int = 0

    def judge(self, said: Answer) -> str:
        """Read the token from the answer (RFC 6749, 5.1). Return '', or the reason if it holds no token."""
        try:
            answer = json.loads(said.whole)
            token, kind = answer['access_token'], answer.get('token_type', 'bearer')
            is_sound = (
                0 < len(token) <= MAX_TOKEN_CHARS and token.isascii() and token.isprintable() and ' ' not in token
            )
            if not is_sound or kind.lower() != 'bearer':
                raise ValueError
            self.token, self.seconds = token, _seconds(answer)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # The server may repeat the secret in its words.
            refusal = [said.echoes.beginning(text, MAX_ERROR_CHARS) for text in _refusal(said.whole)]
            return ': '.join([_('the answer contains no bearer token'), *refusal])
        return ''

    def store(self, outcome: Outcome) -> Outcome | None:
        """Save the token for all workers and return None, or return the delivery's outcome if there is no token.

        Nothing is saved if another worker has claimed the token since.
        """
        if outcome.succeeded:
            now = timezone.now()
            expires_at = now + timedelta(seconds=self.seconds)
            AccessToken.keep(self.credential_id, self.token, self.until, now, expires_at)
            return None
        error = storable(_('no access token: {error}').format(error=outcome.error))
        # The status is the token server's. If it were kept, a 410 would disable the webhook. A body of an answer below
        # 400 may hold a token, so it is not logged.
        body = outcome.body if (outcome.status or 0) >= 400 else ''
        return dataclasses.replace(outcome, status=None, error=error, body=body)


def _refusal(text: str) -> Iterator[str]:
    """Yield the answer's `error` and `error_description`: some servers refuse with status 200."""
    try:
        answer = json.loads(text)
        reasons = [answer.get('error'), answer.get('error_description')]
    except (ValueError, AttributeError, RecursionError):
        return
    yield from (one for one in reasons if one and isinstance(one, str))


def _seconds(answer: Mapping[str, Any]) -> int:
    """Return the token's validity, within bounds.

    A token that ended at once would be fetched again and again.
    """
    try:
        return min(max(int(answer.get('expires_in') or DEFAULT_TOKEN_SECONDS), MIN_TOKEN_SECONDS), MAX_TOKEN_SECONDS)
    except (ValueError, TypeError, OverflowError):
        return DEFAULT_TOKEN_SECONDS


@dataclass(frozen=True, kw_only=True)
class TokenRequest(Request):
    """A request for an access token, to send before the delivery's own. `grant` takes the answer."""

    grant: Grant = field(repr=False)


def encoded(value: str, content_type: str) -> str:
    """Return a credential's value as it stands in a body of this type: quoted in a form, escaped in JSON."""
    if is_form(content_type):
        return quote_plus(value)
    is_json = 'json' in content_type.partition(';')[0].lower()
    return json.dumps(value, ensure_ascii=False)[1:-1] if is_json else value
