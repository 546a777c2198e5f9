"""The transport's terms: a Request goes in, an Outcome comes out, and a judge sees the Answer."""

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..constants import MAX_RESPONSE_READ_BYTES
from ..security.echoes import Echoes
from ..storable import printable

# A longer error is cut.
MAX_ERROR_CHARS = 1000
# A longer name or value of an answer's header is cut.
MAX_HEADER_CHARS = 1000
# This machine has no descriptor, buffer or memory left. The endpoint is not to blame: the delivery goes again.
SHORTAGE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# http.client would send a value with a break as folded lines. A broker's client might take the rest for another header.
LINE_BREAK = re.compile(r'[\r\n]')


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ValueError, with the header's name, if a value contains a line break."""
    if folded := [name for name, value in headers.items() if LINE_BREAK.search(value)]:
        raise ValueError(f'the value of the header {folded[0]} contains a line break')


@dataclass(frozen=True)
class Answer:
    """An endpoint's answer, for `Request.judge`. `headers` are masked as the log shows them.

    `whole` is the text without masks: only the answer of a token's server may be read so.
    """

    status: int
    headers: Mapping[str, str]
    whole: str = field(repr=False)
    echoes: Echoes = field(repr=False)

    @property
    def text(self) -> str:
        """Return the answer's text, masked as the log shows it.

        Conditions see this text: their verdict is shown, and must not reveal a secret.
        """
        return self.echoes.beginning(self.whole, MAX_RESPONSE_READ_BYTES)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to an endpoint, or a message to a broker. Logs may show its repr().

    `timeout` is in seconds. `verify` may be a CA file. `certificate` has the paths of certificate and key.
    `proxies` are by scheme.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    # The masked URL, if a template put a credential into it. '' masks the usual parts.
    shown_url: str = ''
    # The body with masks for credentials, if a template made it.
    shown_body: bytes | None = field(default=None, repr=False)
    verify: bool | str = True
    certificate: tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    # Returns why an answer below 400 is a failure, or ''.
    judge: Callable[[Answer], str] = field(default=lambda answer: '', repr=False)
    # Texts that are masked in the answer.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    # For brokers: the object, such as dcim.site:1, and the delivery's uuid.
    key: str = ''
    id: str = ''


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a request, as the attempt records it. `error` is '' on success.

    `started_at` (Unix) and `duration` are in seconds. `unreachable`: no connection, no answer, or a proxy says so. A
    broker has no `status`; its confirmation is in `headers`.
    """

    started_at: float
    duration: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ''
    error: str = ''
    unreachable: bool = False
    # This machine had no descriptor or memory left: the attempt does not count.
    starved: bool = False
    # A secret that the operator provides is missing: nothing was sent, and the attempt does not count.
    withheld: bool = False
    # Trying again would not help: the request cannot be built, or its outcome cannot be recorded.
    unsendable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, 'error', printable(self.error)[:MAX_ERROR_CHARS])

    @property
    def refused(self) -> bool:
        """Return whether the endpoint itself answered 5xx or 429. 502 to 504 may be a proxy's, and do not count."""
        return self.status is not None and (self.status >= 500 or self.status == 429) and not self.unreachable

    @property
    def succeeded(self) -> bool:
        """Return whether the delivery has arrived."""
        return not self.error
