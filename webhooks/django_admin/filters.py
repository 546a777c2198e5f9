"""Filters beside the admin's lists."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import object_types
from ..presentation.states import STATES, in_state


class StateFilter(admin.SimpleListFilter):
    """Filters webhooks by their state. The query needs `states.with_states`."""

    title = _('state')
    parameter_name = 'state'

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(key, state.label) for key, state in STATES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(in_state(self.value())) if self.value() in STATES else queryset


class ObjectTypeFilter(admin.SimpleListFilter):
    """Filters rows by an object type that webhooks may send.

    A search for the types in use would read the whole log.
    """

    title = _('object type')
    parameter_name = 'object_type'
    field_name = 'object_type'

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = [(label, object_types.name_of(one)) for label, one in object_types.by_label().items()]
        return sorted(found, key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        chosen = object_types.by_label().get(self.value())
        return queryset.filter(**{self.field_name: chosen}) if chosen else queryset


class SubscribedTypeFilter(ObjectTypeFilter):
    """Filters webhooks by an object type that they are subscribed to."""

    field_name = 'object_types'
