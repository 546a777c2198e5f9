"""Forms, bulk edits and the REST API save all columns. So they could undo others' commits."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from django.db import models, router, transaction
from django.utils.translation import gettext as _
from utilities.exceptions import AbortRequest


class ChangedMeanwhile(AbortRequest):
    pass


class ConcurrentModel(models.Model):
    """Saves `guarded` columns only if the caller changed them."""

    # Groups of columns that others write too.
    guarded: tuple[tuple[str, ...], ...] = ()
    # If others changed such a group too, saving fails.
    exclusive: tuple[tuple[str, ...], ...] = ()
    _read: Mapping[str, Any] = MappingProxyType({})

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, *args, **kwargs) -> 'ConcurrentModel':
        made = super().from_db(*args, **kwargs)
        made._remember(made._guarded_names())
        return made

    def refresh_from_db(self, using: str | None = None, fields: Iterable[str] | None = None, **kwargs) -> None:
        names = None if fields is None else list(fields)
        super().refresh_from_db(using, names, **kwargs)
        self._remember(name for name in self._guarded_names() if names is None or name in names)

    def save(self, *args, using: str | None = None, update_fields: Iterable[str] | None = None, **kwargs) -> None:
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
        if name not in vars(self):
            return False
        return name not in self._read or not self._is_same(name, vars(self)[name], self._read[name])

    def _is_same(self, name: str, one: Any, other: Any) -> bool:
        """Compare stored forms: masks may be equal."""
        prepare = self._meta.get_field(name).get_prep_value
        return prepare(one) == prepare(other)

    def _guarded_names(self) -> list[str]:
        return [name for group in self.guarded for name in group]

    def _remember(self, names: Iterable[str]) -> None:
        self._read = {**self._read, **{name: vars(self)[name] for name in names if name in vars(self)}}

    def _forget_changed(self, names: Collection[str] | None) -> None:
        """The save may be rolled back."""
        saved = {name for name in self._read if self.has_changed(name) and (names is None or name in names)}
        self._read = {name: value for name, value in self._read.items() if name not in saved}

    def _take_over(self, alias: str) -> None:
        """Read unchanged columns under the save's lock. Raises ChangedMeanwhile."""
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
            # Else the change log would count others' changes.
            stored.snapshot()
            self._prechange_snapshot = stored._prechange_snapshot
