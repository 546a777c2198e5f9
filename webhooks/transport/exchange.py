"""What goes into an exchange and what comes out: a Request and an Outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..storable import printable

# Characters kept of an error.
MAX_ERROR = 1000


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is sent, and how.

    `timeout` is in seconds, for everything from the name look-up to the last byte of the response. `verify` is whether
    to verify the endpoint's certificate, or the path of the CA file to do it with. `certificate` is the path of the
    client's, with that of its key where this is another file. `proxies` are by scheme, as requests takes them.

    Whatever may hold a secret is left out of its repr(), which may get into a log line or a traceback.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    # Texts that are not kept where the answer repeats them.
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a request. `error` is '' on success.

    `unreachable`: no connection, no answer in time, or a proxy that says the same of the endpoint behind it.

    `started_at` is in unix seconds, `duration` in seconds. `status` is None where no response came. `headers` and
    `body` are as much of the response as is kept.
    """

    started_at: float
    duration: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ''
    error: str = ''
    unreachable: bool = False
    # No request could be made, and none will be until somebody mends the definition.
    unsendable: bool = False

    def __post_init__(self) -> None:
        # It goes into log lines, whoever has made it.
        object.__setattr__(self, 'error', printable(self.error)[:MAX_ERROR])

    @property
    def succeeded(self) -> bool:
        """Whether the final answer's status was below 400, and neither a redirect nor 101."""
        return not self.error
