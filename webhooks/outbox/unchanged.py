"""Finds saves that change nothing. Real changes change columns or many-to-many links.

Changes of `last_updated` and of columns that NetBox keeps by itself, such as counters, do not count. A custom field
without a value may be null or missing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

from django.db import connection, models
from utilities.fields import CounterCacheField

from ..choices import KindChoices
from ..models import Event
from ..object_types import model_of_id
from ..rendering.derived import MAINTAINED
from ..rendering.keys import is_stored_whole
from .snapshots import UNLOCKED, expression

# Columns that NetBox sets by itself. A save that changes only these changes nothing. Triggers copy the last six from
# other objects: when a site moves to another region, into its prefixes. The API does not show them.
KEPT_BY_NETBOX = (
    'last_updated', *sorted(MAINTAINED), '_config_context_data', '_config_context_generation', '_site_id',
    '_location_id', '_rack_id', '_region_id', '_site_group_id', 'sort_path',
)  # fmt: skip

CUSTOM_FIELDS = 'custom_field_data'

# Whether these two values of CUSTOM_FIELDS are the same. If a field is newer than the object, the object's next save
# through a form writes null for it.
HAS_SAME_FIELDS = """CASE WHEN jsonb_typeof({before}) = 'object' AND jsonb_typeof({after}) = 'object' THEN NOT EXISTS (
        SELECT FROM jsonb_object_keys({before} || {after}) AS name
        WHERE coalesce({before} -> name, 'null') <> coalesce({after} -> name, 'null')
    ) ELSE {before} IS NOT DISTINCT FROM {after} END"""

# Read whether a save has to be recorded: it changed something, or the transaction has an event of the object already.
# That event gets the object's last state, even if the last save changes nothing.
HAS_CHANGES = """({is_same}) IS NOT TRUE OR EXISTS (
    SELECT FROM webhooks_event o
    WHERE o.transaction_id = pg_current_xact_id()::text::bigint AND o.transaction_time = now()
      AND o.object_type_id = {type_id:d} AND o.object_id = s.pk AND o.dispatched_at IS NULL)"""

# A digest of the values in a snapshot, without the columns that NetBox sets by itself.
STATE = "md5(jsonb_strip_nulls({row} - {kept})::text || ({snapshot} -> 'm2m')::text)::uuid"

# Find the events in a list whose state before is the same as after.
FIND_UNCHANGED = """
    SELECT e.id FROM webhooks_event e WHERE e.id = ANY(%s) AND {is_same}"""


def prepare(model: type[models.Model]) -> None:
    """Learn what has_changes() needs. That takes long the first time, so it is done before a row is locked."""
    is_stored_whole(model)


def has_changes(model: type[models.Model], type_id: int) -> str:
    """Return an SQL condition over `s.pk`, `s.before` and `s.snapshot`: whether a save has to be recorded.

    It is true where the state before is unknown, and where a snapshot does not hold the whole object.
    """
    if not is_stored_whole(model):
        return 'true'
    return HAS_CHANGES.format(is_same=_is_same(model, 's.before', 's.snapshot'), type_id=type_id)


def among(events: Iterable[Event]) -> set[int]:
    """Return the ids of the updates that surely changed nothing. Reads the events' snapshots, once for each model.

    Events of backfills, and events that a component made for its device, are never among them.
    """
    by_type: dict[int, list[int]] = defaultdict(list)
    for event in events:
        if event.kind == KindChoices.UPDATED and not event.backfill and not event.caused_by:
            by_type[event.object_type_id].append(event.pk)
    return {pk for type_id, pks in by_type.items() for pk in _among(type_id, pks)}


def _among(type_id: int, pks: Sequence[int]) -> list[int]:
    model = model_of_id(type_id)
    if model is None or not is_stored_whole(model):
        return []
    with connection.cursor() as cursor:
        cursor.execute(FIND_UNCHANGED.format(is_same=_is_same(model, 'e.prechange', 'e.snapshot')), [pks])
        return [pk for (pk,) in cursor.fetchall()]


@cache
def state(model: type[models.Model]) -> str:
    """Return SQL for a digest (uuid) of the values of the model's row `t`, with its links. NULL without such a row."""
    return STATE.format(row='to_jsonb(t)', snapshot=expression(model), kept=_array(kept_by_netbox(model)))


@cache
def kept_by_netbox(model: type[models.Model]) -> list[str]:
    """Return the columns of the model that NetBox sets by itself."""
    counters = [field.attname for field in model._meta.concrete_fields if isinstance(field, CounterCacheField)]
    return [*KEPT_BY_NETBOX, *counters]


def _array(names: Iterable[str]) -> str:
    return f"'{{{','.join(names)}}}'::text[]"


@cache
def _is_same(model: type[models.Model], before: str, after: str) -> str:
    """Return an SQL condition: whether both snapshots show the same. It is not true if the state before is unknown."""
    kept = _array([*kept_by_netbox(model), CUSTOM_FIELDS])
    fields = [f"({one} -> 'row' -> '{CUSTOM_FIELDS}')" for one in (before, after)]
    return f"""{before} -> 'm2m' = {after} -> 'm2m' AND ({before} -> 'row') - {kept} = ({after} -> 'row') - {kept}
        AND {HAS_SAME_FIELDS.format(before=fields[0], after=fields[1])} AND NOT {before} ? '{UNLOCKED}'"""
