"""What the admin's pages of deliveries and events share: nothing can be changed, and the search."""

from collections.abc import Container, Iterable
from typing import Any

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .. import object_types
from ..models import Delivery, Event
from ..presentation.states import marks_of
from ..storable import is_key, uuid_of
from ..tables import event_of, object_url
from .base import BaseAdmin
from .display import column


class ReadOnly:
    """A mixin for the log: nobody adds, changes or deletes its rows."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission


def _happened(row: Delivery | Event) -> str:
    change = f'{object_types.name_of(row.object_type)}: {row.get_kind_display()}'
    return ' · '.join([change, *marks_of(event_of(row))])


def _object(row: Delivery | Event) -> SafeString | str:
    """Return the object's name at the event, with a link as in NetBox's lists."""
    text, url = event_of(row).object_repr or str(row.object_id), object_url(row)
    return format_html('<a href="{}">{}</a>', url, text) if url else text


class LogAdmin(ReadOnly, BaseAdmin):
    """The base of both pages. `name_lookup` leads from a row to the object's name. A page leaves out blank fields."""

    name_lookup: str
    # Not asked whether it is blank: that would cost as much as to show it.
    costly = ''
    list_per_page = 50
    show_full_result_count = False
    search_fields = ('uuid',)

    happened = column(_('Event'), _happened)
    object = column(_('Object'), _object)
    caused_by = column(_('Caused by'), lambda row: ', '.join(event_of(row).caused_by or ()))
    partial = column(_('Keys without data'), lambda row: ', '.join(event_of(row).partial or ()))

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> list:
        """Return the groups of fields, without the fields that have nothing to show."""
        groups = super().get_fieldsets(request, obj)
        names = {name for _title, options in groups for row in options['fields'] for name in row} - {self.costly}
        blank = {name for name in names if self._shown(name, obj) in (None, '')}
        return [(title, {**options, 'fields': _without(options['fields'], blank)}) for title, options in groups]

    def _shown(self, name: str, row: Model) -> Any:
        show = getattr(self, name, None)
        return show(row) if show else getattr(row, name)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Return the rows with this UUID or object ID, or with this text in the object's name."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if found := uuid_of(term):
            return queryset.filter(uuid=found), False
        named = Q(**{f'{self.name_lookup}__icontains': term})
        return queryset.filter(named | Q(object_id=int(term)) if is_key(term) else named), False


def _without(rows: Iterable[tuple[str, ...]], blank: Container[str]) -> list[tuple[str, ...]]:
    """Return rows of fields without the blank fields, and without the rows that have no other."""
    left = [tuple(name for name in row if name not in blank) for row in rows]
    return [names for names in left if names]
