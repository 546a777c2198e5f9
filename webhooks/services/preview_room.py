"""Lets only a few people try templates and conditions at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django.utils.translation import gettext as _

from ..engine import sql
from ..exceptions import Busy

# Each preview holds a thread of NetBox, and may fork a renderer. If more ran, pages of NetBox would wait.
MAX_PREVIEWS = 4
# The class of the advisory locks that count previews: "webk" in ASCII.
PREVIEW_LOCK = 0x7765626B
# Lock a free place until the transaction ends. It finds none if all places are taken.
TAKE_ROOM = 'SELECT n FROM generate_series(1, %s) AS n WHERE pg_try_advisory_xact_lock(%s, n) LIMIT 1'


@contextmanager
def taken() -> Iterator[None]:
    """Run a block in a transaction, as one of MAX_PREVIEWS previews at most. Raises Busy."""
    with transaction.atomic():
        if not sql.fetch(TAKE_ROOM, [MAX_PREVIEWS, PREVIEW_LOCK]):
            raise Busy(_('Too many previews are open at the moment. Try again in a few seconds.'))
        yield
