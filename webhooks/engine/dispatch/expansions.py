"""Looks up related objects for webhooks with `expand`. Slow or bad objects stay in their brief form."""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from psycopg.errors import QueryCanceled

from ... import patience, rendering
from ...outbox import snapshots
from ...rendering import expansion
from ...rendering.keys import may_be_expanded
from .. import sql
from ..each import each_or_alone

logger = logging.getLogger('webhooks.dispatch')

# Time to look up one model's objects for a slice of events.
LOOK_UP_SECONDS = 3.0
# A model that takes longer is not looked up for this time.
SLOW_MODEL_REST_SECONDS = 600.0

# Read the data of each object's last deletion: the payload's if it is complete, or else the snapshot's. Leave out
# deletions that an event rule sends, as NetBox gives it no counts, and those that a walk found, which have only an id.
READ_DELETIONS = """
    SELECT DISTINCT ON (object_id) object_id,
        coalesce(CASE WHEN partial IS NULL THEN nullif(data, '') END, snapshot #>> %s)
    FROM webhooks_event
    WHERE object_type_id = %s AND object_id = ANY(%s) AND kind = 'deleted' AND NOT test
      AND transaction_id <> 0 AND backfill_for IS NULL
    ORDER BY object_id, sequence DESC"""


class Expander:
    """Looks up related objects for `expand`. It knows which models were too slow, and leaves these out for a while."""

    def __init__(self) -> None:
        self._resting: dict[type[Model], float] = {}

    def find(self, shown: Sequence[tuple[expansion.Data, Collection[str]]]) -> list[dict[str, expansion.Data]]:
        """Return {URL: data as GET shows it now} of the related objects, for each (data, keys to expand) of `shown`.

        Objects are missing that are slow, cannot be rendered, or may not be expanded. Raises Locked.
        """
        return expansion.find([(data, expansion.tree_of(keys)) for data, keys in shown], self._look_up)

    def _look_up(self, model: type[Model], pks: Collection[int]) -> dict[int, expansion.Data]:
        if not may_be_expanded(model) or self._resting.get(model, 0.0) > time.monotonic():
            return {}
        return dict(filter(None, each_or_alone(list(pks), partial(self._show, model), partial(_left_brief, model))))

    def _show(self, model: type[Model], pks: Sequence[int]) -> Collection[tuple[int, expansion.Data]]:
        try:
            with patience.within(LOOK_UP_SECONDS), sql.reading():
                return _shown(model, pks).items()
        except Exception as error:
            # If PostgreSQL's own limit is shorter, it cancels the query first: that is too slow as well.
            if not isinstance(error, patience.TooSlow) and not isinstance(error.__cause__, QueryCanceled):
                raise
        logger.error(
            'model=%s takes too long to expand: it is left out for %d s',
            model._meta.label_lower,
            SLOW_MODEL_REST_SECONDS,
        )
        self._resting[model] = time.monotonic() + SLOW_MODEL_REST_SECONDS
        return ()


def types_of(objects: Mapping[str, object]) -> list[int]:
    """Return the ids of the models of objects that are given by their URLs, each once, in order."""
    models = filter(None, map(expansion.model_at, objects))
    return sorted({ContentType.objects.get_for_model(model).pk for model in models})


def deletions(model: type[Model], pks: Collection[int]) -> dict[int, expansion.Data]:
    """Return {id: data} of deleted objects, as the event of their last deletion shows them, if it is in the log."""
    shown = [rendering.SHOWN, 'data']
    rows = sql.fetch(READ_DELETIONS, [shown, ContentType.objects.get_for_model(model).pk, list(pks)])
    return {pk: json.loads(text) for pk, text in rows if text}


def _shown(model: type[Model], pks: Sequence[int]) -> dict[int, expansion.Data]:
    taken = snapshots.take(model, pks)
    now = {rendering.TAKEN_AT: rendering.NOW}
    rendered = rendering.render(model, [json.loads(text) | now for text in taken.values()])
    shown = {pk: one.data for pk, one in zip(taken, rendered, strict=True)}
    gone = set(pks) - shown.keys()
    return shown | (deletions(model, gone) if gone else {})


def _left_brief(model: type[Model], pk: int, error: Exception) -> None:
    logger.error('model=%s id=%s cannot be expanded', model._meta.label_lower, pk, exc_info=error)
