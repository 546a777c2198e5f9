"""What the objects of events point to is looked up for the webhooks that ask for it (`expand`), as it is now.

What cannot be rendered, or takes too long, is left in its brief form: it is no matter of webhooks that did not ask.
"""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from psycopg.errors import QueryCanceled

from ... import rendering
from ...choices import KindChoices
from ...interruptions import is_cache_away
from ...outbox import snapshots
from ...rendering import expansion
from ...rendering.keys import may_be_expanded
from .. import sql, time_limit

logger = logging.getLogger('webhooks.dispatch')

# Seconds that it may take for one slice of events, and for which objects of a model are left out that took longer.
LONGEST, REST = 30.0, 600.0
_resting: dict[type[Model], float] = {}

# What the last deletion of each object showed: as text where it is dispatched, else with its snapshot. One that was
# rendered later did not know all. A test of a webhook for deletions deletes nothing.
DELETIONS = f"""
    SELECT DISTINCT ON (object_id) object_id,
        coalesce(CASE WHEN partial IS NULL THEN nullif(data, '') END, snapshot #>> '{{{rendering.SHOWN},data}}')
    FROM webhooks_event
    WHERE object_type_id = %s AND object_id = ANY(%s) AND kind = '{KindChoices.DELETED}' AND NOT test
    ORDER BY object_id, sequence DESC"""


def find(shown: Sequence[tuple[expansion.Data, Collection[str]]]) -> list[dict[str, expansion.Data]]:
    """Return {URL: what GET shows} of what each of the objects points to by its keys, as far as it is known."""
    wanted = [(data, expansion.tree_of(keys)) for data, keys in shown]
    rested = len(_resting)
    try:
        with time_limit.within(LONGEST):
            return expansion.find(wanted, _look_up)
    except time_limit.TooSlow:
        # Again without the model that was slow; if it was none, without any.
        return find(shown) if len(_resting) > rested else [{} for _one in shown]


def types_of(objects: Mapping[str, object]) -> list[int]:
    """Return the ids of the object types of what was expanded, by URL."""
    models = filter(None, map(expansion.model_at, objects))
    return sorted({ContentType.objects.get_for_model(model).pk for model in models})


def deletions(model: type[Model], pks: Collection[int]) -> dict[int, expansion.Data]:
    """Return {pk: what the object's deletion showed} of objects of the model, as far as it is known."""
    rows = sql.fetch(DELETIONS, [ContentType.objects.get_for_model(model).pk, list(pks)])
    return {pk: json.loads(text) for pk, text in rows if text}


def _look_up(model: type[Model], pks: Collection[int]) -> dict[int, expansion.Data]:
    if not may_be_expanded(model) or _resting.get(model, 0.0) > time.monotonic():
        return {}
    before = sql.session()
    try:
        with transaction.atomic():
            return _show(model, pks)
    except time_limit.TooSlow:
        _rest(model)
        raise
    except Exception as error:
        if sql.is_broken_off(error, before) or is_cache_away(error):
            raise
        if isinstance(error.__cause__, QueryCanceled):
            _rest(model)
            return {}
        if len(pks) == 1:
            logger.exception('model=%s id=%s cannot be expanded', model._meta.label_lower, *pks)
            return {}
        return {pk: data for one in pks for pk, data in _look_up(model, [one]).items()}


def _show(model: type[Model], pks: Collection[int]) -> dict[int, expansion.Data]:
    taken = snapshots.take(model, pks)
    now = {rendering.TAKEN_AT: rendering.NOW}
    rendered = rendering.render(model, [json.loads(text) | now for text in taken.values()])
    shown = {pk: one.data for pk, one in zip(taken, rendered, strict=True)}
    gone = set(pks) - shown.keys()
    return shown | (deletions(model, gone) if gone else {})


def _rest(model: type[Model]) -> None:
    logger.error('model=%s takes too long to expand: it is left out for %d s', model._meta.label_lower, REST)
    _resting[model] = time.monotonic() + REST
