"""What the admin's pages of the log have in common."""

from collections.abc import Container, Iterable
from typing import Any

from django.db.models import Model
from django.http import HttpRequest


class ReadOnly:
    """A mixin for the log: nobody adds, changes or deletes its rows. A page leaves out its blank fields."""

    # Those of the page's fields that are often blank.
    may_be_blank: tuple[str, ...] = ()

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> list:
        """Return the groups of fields, without `may_be_blank` where the row has nothing to show for them."""
        groups = super().get_fieldsets(request, obj)
        blank = {name for name in self.may_be_blank if not self._shown(name, obj)}
        return [(title, {**options, 'fields': _without(options['fields'], blank)}) for title, options in groups]

    def _shown(self, name: str, row: Model) -> Any:
        show = getattr(self, name, None)
        return show(row) if show else getattr(row, name)


def _without(rows: Iterable[str | tuple[str, ...]], blank: Container[str]) -> list[tuple[str, ...]]:
    """Return rows of fields without the blank fields, and without the rows that have no other."""
    left = [[name for name in ((row,) if isinstance(row, str) else row) if name not in blank] for row in rows]
    return [tuple(names) for names in left if names]
