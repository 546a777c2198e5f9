"""One worker fetches an OAuth2 token for all. Meanwhile other deliveries use the old token while it is valid, or go
back for a moment.
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
from ..exceptions import DecryptionError, WebhooksError
from ..models import AccessToken, Credential, Webhook
from ..security import echoes
from ..security.masking import MASK
from ..storable import storable
from ..transport.exchange import Answer, Outcome, Request
from ..validation.body import FORM_TYPE, is_form
from ..validation.secret import reveal
from ..version import VERSION

# Seconds of the request, and time until another worker may try.
TOKEN_REQUEST_SECONDS, TOKEN_CLAIM = 10, timedelta(seconds=15)
# Renew so long before the end; do not use the last seconds.
TOKEN_RENEWAL_LEAD, TOKEN_SAFETY_MARGIN = timedelta(minutes=1), timedelta(seconds=5)
NEW_TOKEN_PERIOD = timedelta(minutes=1)
# Seconds of validity: default, minimum and maximum.
DEFAULT_TOKEN_SECONDS, MIN_TOKEN_SECONDS, MAX_TOKEN_SECONDS = 300, 10, 86400
# Characters.
MAX_TOKEN_CHARS = 16 * 1024

USER_AGENT = f'netbox-webhooks/{VERSION}'


class TokenPending(WebhooksError):
    pass


@dataclass(frozen=True)
class Access:
    """`values` are by their names in templates."""

    values: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*self.values.values(), *echoes.of_headers(self.headers.values()))

    def masked(self) -> 'Access':
        return Access(dict.fromkeys(self.values, MASK), dict.fromkeys(self.headers, MASK))


class Authorizer:
    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._credential: Credential | None = webhook.credential
        self._row: AccessToken | None = None

    def access(self) -> 'Access | TokenRequest':
        """Return the access, or the request to send first. Raises DefinitionError and TokenPending."""
        credential = self._credential
        if credential is None:
            return Access()
        secret = reveal('credential', credential.secret)
        if not credential.is_oauth2:
            return _access(credential, secret)
        token, until = self._token(credential)
        return self._token_request(credential, secret, until) if until else _access(credential, token)

    def preview(self) -> Access:
        return _access(self._credential, MASK).masked() if self._credential else Access()

    def forget(self, request: Request) -> bool:
        """Its token was refused. Returns whether a new one may help."""
        if not (self._credential and self._credential.is_oauth2):
            return False
        row, now = self._row, timezone.now()
        if row is None or row.fetched_at is None or _readable(row) not in request.secrets:
            return True  # another request has told already
        if row.fetched_at <= now < row.fetched_at + NEW_TOKEN_PERIOD:
            return False
        self._row = None
        return row.end(now)

    def _token(self, credential: Credential) -> tuple[str, datetime | None]:
        """Return the token, or '' and until when this worker may fetch it."""
        row, now = self._row, timezone.now()
        if row is None or now > _renewed_at(row):
            row, _created = AccessToken.objects.get_or_create(credential=credential)
            self._row = row
        token, until = _readable(row), now + TOKEN_CLAIM
        if now <= _renewed_at(row):
            return token, None
        if row.claim(now, until):
            return '', until
        if token and row.expires_at and now < row.expires_at - TOKEN_SAFETY_MARGIN:
            return token, None
        raise TokenPending

    def _token_request(self, credential: Credential, secret: str, until: datetime) -> 'TokenRequest':
        wanted = {'grant_type': 'client_credentials', 'scope': credential.scope, 'audience': credential.audience}
        login = {}
        if credential.type == CredentialTypeChoices.OAUTH2_BODY:
            wanted |= {'client_id': credential.username, 'client_secret': secret}
        else:
            # RFC 6749, 2.3.1: form-encoded first.
            login = basic_login(quote_plus(credential.username), quote_plus(secret))
        grant = Grant(credential.pk, until)
        return TokenRequest(
            method='POST',
            url=credential.token_url,
            shown_url=credential.token_url,
            headers={'Content-Type': FORM_TYPE, 'Accept': 'application/json', 'User-Agent': USER_AGENT, **login},
            body=urlencode({name: value for name, value in wanted.items() if value}).encode(),
            timeout=TOKEN_REQUEST_SECONDS,
            verify=credential.ca_file_path or True,
            proxies=proxies_for(self._webhook, credential.token_url),
            judge=grant.judge,
            secrets=(secret, *echoes.of_headers(login.values())),
            grant=grant,
        )


def _readable(row: AccessToken) -> str:
    """Return the token. While keys are replaced, other processes may not know its key: '' then."""
    try:
        return row.token.reveal()
    except DecryptionError:
        return ''


def _renewed_at(row: AccessToken) -> datetime:
    if row.expires_at is None or row.fetched_at is None or not _readable(row):
        return timezone.now() - TOKEN_RENEWAL_LEAD
    return row.expires_at - min(TOKEN_RENEWAL_LEAD, (row.expires_at - row.fetched_at) / 2)


def _access(credential: Credential, secret: str) -> Access:
    match credential.type:
        case CredentialTypeChoices.BASIC:
            values = {'username': credential.username, 'password': secret}
            return Access(values, basic_login(credential.username, secret))
        case CredentialTypeChoices.HEADER:
            return Access({'token': secret}, {credential.header: secret})
        case CredentialTypeChoices.TEMPLATE:
            return Access({'token': secret})
        case _:
            return Access({'token': secret}, {'Authorization': f'Bearer {secret}'})


def proxies_for(webhook: Webhook, url: str) -> Mapping[str, str]:
    return resolve_proxies(url=url, context={'client': webhook}) or {}


def basic_login(user: str, password: str) -> dict[str, str]:
    """RFC 7617."""
    return {'Authorization': f'Basic {b64encode(f"{user}:{password}".encode()).decode()}'}


@dataclass
class Grant:
    """`until` identifies the claim."""

    credential_id: int
    until: datetime
    token: str = field(default='', repr=False)
    seconds: int = 0

    def judge(self, said: Answer) -> str:
        """Read the token (RFC 6749, 5.1). Returns the error, or ''."""
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
            return ': '.join([_('the answer holds no bearer token'), *_refusal(said.whole)])
        return ''

    def settle(self, outcome: Outcome) -> Outcome | None:
        """Returns the delivery's outcome if there is no token."""
        if outcome.succeeded:
            now = timezone.now()
            expires_at = now + timedelta(seconds=self.seconds)
            AccessToken.keep(self.credential_id, self.token, self.until, now, expires_at)
            return None
        error = storable(_('no access token: {error}').format(error=outcome.error))
        # 410 here does not mean the endpoint. Below 400 the body may hold a token.
        body = outcome.body if (outcome.status or 0) >= 400 else ''
        return dataclasses.replace(outcome, status=None, error=error, body=body)


def _refusal(text: str) -> Iterator[str]:
    """Yield the answer's `error` and `error_description`: some servers refuse with status 200."""
    try:
        answer = json.loads(text)
        told = [answer.get('error'), answer.get('error_description')]
    except (ValueError, AttributeError, RecursionError):
        return
    yield from (one for one in told if one and isinstance(one, str))


def _seconds(answer: Mapping[str, Any]) -> int:
    """A token that ended at once would be fetched again and again."""
    try:
        return min(max(int(answer.get('expires_in') or DEFAULT_TOKEN_SECONDS), MIN_TOKEN_SECONDS), MAX_TOKEN_SECONDS)
    except (ValueError, TypeError, OverflowError):
        return DEFAULT_TOKEN_SECONDS


@dataclass(frozen=True, kw_only=True)
class TokenRequest(Request):
    grant: Grant = field(repr=False)


def encoded(value: str, content_type: str) -> str:
    if is_form(content_type):
        return quote_plus(value)
    is_json = 'json' in content_type.partition(';')[0].lower()
    return json.dumps(value, ensure_ascii=False)[1:-1] if is_json else value
