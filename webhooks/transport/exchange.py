"""What goes into an exchange and what comes out: a Request and an Outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..storable import printable

# Characters kept of an error.
MAX_ERROR = 1000


@dataclass(frozen=True, kw_only=True)
class Request:
    """`timeout` is in seconds, for everything from the name look-up to the last byte of the response."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: float
    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    # Texts that are not kept where the answer repeats them.
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a request. `error` is '' on success; `unreachable`: no connection, or no answer in time."""

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
        return not self.error
