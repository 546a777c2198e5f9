"""Only so many people try templates and conditions at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django.utils.translation import gettext as _

from ..engine import sql
from ..exceptions import Busy

# Each holds a thread of NetBox, and may fork a renderer.
MAX_PREVIEWS = 4
COUNTING = 0x7765626B
TAKE_ROOM = 'SELECT n FROM generate_series(1, %s) AS n WHERE pg_try_advisory_xact_lock(%s, n) LIMIT 1'


@contextmanager
def taken() -> Iterator[None]:
    """Run a block in a transaction. Raises Busy."""
    with transaction.atomic():
        if not sql.fetch(TAKE_ROOM, [MAX_PREVIEWS, COUNTING]):
            raise Busy(_('Too many previews are open at the moment. Try again in a few seconds.'))
        yield
