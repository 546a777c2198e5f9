import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..constants import MAX_RESPONSE_READ
from ..security.echoes import Echoes
from ..storable import printable

# Characters.
MAX_ERROR = 1000
# Characters.
MAX_HEADER = 1000
# Of this machine.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# http.client would send folded lines, and a broker's client might take the rest for another header.
BREAK = re.compile(r'[\r\n]')


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ValueError."""
    if folded := [name for name, value in headers.items() if BREAK.search(value)]:
        raise ValueError(f'the value of the header {folded[0]} contains a line break')


@dataclass(frozen=True)
class Answer:
    """`headers` are masked as the log shows them. Only a token server's `whole` text may be read."""

    status: int
    headers: Mapping[str, str]
    whole: str = field(repr=False)
    echoes: Echoes = field(repr=False)

    @property
    def text(self) -> str:
        """The text, masked as the log shows it: whoever sees what it meets must not learn a secret from that."""
        return self.echoes.beginning(self.whole, MAX_RESPONSE_READ)


@dataclass(frozen=True, kw_only=True)
class Request:
    """`timeout` is in seconds. `verify` may be a CA file, `certificate` a path or a pair with the key's path. `proxies`
    are by scheme. Logs may show repr().
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    # If more of it is secret than usual.
    shown_url: str = ''
    # Of a template: the body with masked credentials.
    shown_body: bytes | None = field(default=None, repr=False)
    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    # Why an answer below 400 is a failure, or ''.
    judge: Callable[[Answer], str] = field(default=lambda answer: '', repr=False)
    # Masked in the answer.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    # For brokers: the object, such as dcim.site:1, and the delivery.
    key: str = ''
    id: str = ''


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`error` is '' on success. `unreachable`: no connection, no answer in time, or a proxy says so. `started_at`
    (Unix) and `duration` are in seconds. A broker has no `status`; its confirmation is in `headers`.
    """

    started_at: float
    duration: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ''
    error: str = ''
    unreachable: bool = False
    # This machine had no descriptor or memory left.
    starved: bool = False
    # Somebody has to mend the definition.
    unsendable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, 'error', printable(self.error)[:MAX_ERROR])

    @property
    def refused(self) -> bool:
        """Whether it answered with a failure of its own, or too many requests."""
        return self.status is not None and (self.status >= 500 or self.status == 429) and not self.unreachable

    @property
    def succeeded(self) -> bool:
        return not self.error
