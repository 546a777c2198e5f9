from collections.abc import Iterator

import pytest

from webhooks.engine.deliver import backoff


@pytest.fixture(autouse=True)
def first_retry_waits_a_minute() -> Iterator[None]:
    """A busy machine may take five seconds from one step of a test to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backoff, 'BACKOFF_SECONDS', (60, *backoff.BACKOFF_SECONDS[1:]))
        yield
