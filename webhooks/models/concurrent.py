"""Lets a save keep changes that others have committed meanwhile, and updates rows without waiting for a lock.

Forms, bulk edits and the REST API save all columns as they read them. If a secret was rotated since, such a save would
bring the old one back.
"""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from django.db import models, router, transaction
from django.utils.translation import gettext as _
from utilities.exceptions import AbortRequest


@transaction.atomic
def update_unlocked(row: models.QuerySet, **changes: Any) -> bool:
    """Update a row, unless it is gone or locked. Returns whether it was updated. Never waits."""
    is_free = row.select_for_update(skip_locked=True).values_list('pk').first()
    return is_free is not None and bool(row.update(**changes))


class ChangedMeanwhile(AbortRequest):
    """Raised by a save whose columns somebody else has changed since they were read.

    NetBox shows its text to the user.
    """


class ConcurrentModel(models.Model):
    """A model whose `guarded` columns are written only by a caller who has changed them.

    A save of a group that the caller left alone takes over the row's present values. If the caller changed it, the
    caller's values are written; in an `exclusive` group the save raises ChangedMeanwhile if others changed it too.
    """

    # Groups of columns that other code writes too, such as a rotation of the secret.
    guarded: tuple[tuple[str, ...], ...] = ()
    # Groups that make sense only together. If two people change one at once, the second save fails.
    exclusive: tuple[tuple[str, ...], ...] = ()
    # {column: its value when it was read}
    _read: Mapping[str, Any] = MappingProxyType({})

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, *args, **kwargs) -> 'ConcurrentModel':
        """Make an instance of a row, and remember the values of its guarded columns."""
        made = super().from_db(*args, **kwargs)
        made._remember(made._guarded_names())
        return made

    def refresh_from_db(self, using: str | None = None, fields: Iterable[str] | None = None, **kwargs) -> None:
        """Read the row again, or only `fields` of it, and remember the guarded columns anew."""
        names = None if fields is None else list(fields)
        super().refresh_from_db(using, names, **kwargs)
        self._remember(name for name in self._guarded_names() if names is None or name in names)

    def save(self, *args, using: str | None = None, update_fields: Iterable[str] | None = None, **kwargs) -> None:
        """Write the row under its lock, with others' values in the guarded columns that this caller left alone.

        It does nothing more to new rows, and to saves with `update_fields`. Raises ChangedMeanwhile.
        """
        names = None if update_fields is None else list(update_fields)
        if self._state.adding or names is not None:
            super().save(*args, using=using, update_fields=names, **kwargs)
        else:
            alias = using or router.db_for_write(type(self), instance=self)
            with transaction.atomic(alias):
                self._take_over(alias)
                super().save(*args, using=using, **kwargs)
        self._forget_changed(names)

    save.alters_data = True

    def has_changed(self, name: str) -> bool:
        """Whether a guarded column differs from the value that was read. True if it was set and never read."""
        if name not in vars(self):
            return False
        return name not in self._read or not self._is_same(name, vars(self)[name], self._read[name])

    def _is_same(self, name: str, one: Any, other: Any) -> bool:
        """Compare what is stored: two masks look equal."""
        field = self._meta.get_field(name)
        stored = getattr(field, 'get_whole', field.get_prep_value)
        return stored(one) == stored(other)

    def _guarded_names(self) -> list[str]:
        return [name for group in self.guarded for name in group]

    def _remember(self, names: Iterable[str]) -> None:
        self._read = {**self._read, **{name: vars(self)[name] for name in names if name in vars(self)}}

    def _forget_changed(self, names: Collection[str] | None) -> None:
        """Forget the saved values: they count as changed, because the save may be rolled back."""
        saved = {name for name in self._read if self.has_changed(name) and (names is None or name in names)}
        self._read = {name: value for name, value in self._read.items() if name not in saved}

    def _take_over(self, alias: str) -> None:
        """Lock the row, and take over others' values in the groups that were left alone. Raises ChangedMeanwhile."""
        if not any(name in self._read for name in self._guarded_names()):
            return
        stored = type(self)._base_manager.using(alias).select_for_update(no_key=True).filter(pk=self.pk).first()
        if stored is None:
            return
        newer = {group: self._newer(group, stored) for group in self.guarded}
        touched = [group for group in self.guarded if any(map(self.has_changed, group))]
        for group in touched:
            if group in self.exclusive and newer[group]:
                names = ', '.join(str(self._meta.get_field(name).verbose_name) for name in newer[group])
                text = _('Someone else has just changed: {names}. Load the page again, and repeat your change.')
                raise ChangedMeanwhile(text.format(names=names))
        self._adopt(stored, [name for group in self.guarded if group not in touched for name in newer[group]])

    def _newer(self, group: Iterable[str], stored: 'ConcurrentModel') -> list[str]:
        read = (name for name in group if name in self._read)
        return [name for name in read if not self._is_same(name, vars(stored)[name], self._read[name])]

    def _adopt(self, stored: 'ConcurrentModel', names: Collection[str]) -> None:
        if not names:
            return
        vars(self).update({name: vars(stored)[name] for name in names})
        self._remember(names)
        if '_prechange_snapshot' in vars(self):
            # If the snapshot kept the old values, the change log would name this user for others' changes.
            stored.snapshot()
            self._prechange_snapshot = stored._prechange_snapshot
