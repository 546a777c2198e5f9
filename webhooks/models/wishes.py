"""Which changes a webhook wants, and what has to be recorded for it."""

from typing import Any

from ..choices import FormatChoices, KindChoices


class Wishes:
    type_create: bool
    type_update: bool
    type_delete: bool
    include_snapshots: bool
    conditions: Any
    payload_format: str
    only_real_changes: bool
    only_if_changed: list[str]

    @property
    def kinds(self) -> list[str]:
        flags = (
            (KindChoices.CREATED, self.type_create),
            (KindChoices.UPDATED, self.type_update),
            (KindChoices.DELETED, self.type_delete),
        )
        return [kind for kind, wanted in flags if wanted]

    @property
    def kind_labels(self) -> str:
        labels = dict(KindChoices)
        return ', '.join(str(labels[kind]) for kind in self.kinds)

    @property
    def needs_before(self) -> bool:
        """Whether it shows what was before, or asks for it in its conditions."""
        return self.include_snapshots or bool(self.conditions) or self.payload_format == FormatChoices.NETBOX

    @property
    def compares(self) -> bool:
        """Whether saves that change nothing are no updates to it."""
        return self.only_real_changes or bool(self.only_if_changed)

    @property
    def wants_unchanged(self) -> bool:
        return self.type_update and not self.compares

    @property
    def records_before(self) -> bool:
        return self.needs_before or (self.type_update and self.compares)
