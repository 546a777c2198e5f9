"""Which changes a webhook wants, and which states of objects have to be recorded for it."""

from typing import Any

from ..choices import FormatChoices, KindChoices


class WantedChanges:
    """Answers these questions for Webhook, from its columns, without a query."""

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
        """Return the kinds of change that it sends: values of KindChoices."""
        flags = (
            (KindChoices.CREATED, self.type_create),
            (KindChoices.UPDATED, self.type_update),
            (KindChoices.DELETED, self.type_delete),
        )
        return [kind for kind, wanted in flags if wanted]

    @property
    def kind_labels(self) -> str:
        """Return the kinds of change that it sends, for people, such as 'Created, Deleted'."""
        labels = dict(KindChoices)
        return ', '.join(str(labels[kind]) for kind in self.kinds)

    @property
    def shows_before(self) -> bool:
        """Whether its requests show the state before a change."""
        return self.include_snapshots or self.payload_format in (FormatChoices.NETBOX, FormatChoices.THIN)

    @property
    def needs_before(self) -> bool:
        """Whether it shows the state before a change, or may ask for it in its conditions."""
        return self.shows_before or bool(self.conditions)

    @property
    def compares(self) -> bool:
        """Whether saves that change nothing are no updates to it."""
        return self.only_real_changes or bool(self.only_if_changed)

    @property
    def wants_unchanged(self) -> bool:
        """Whether saves that change nothing have to be recorded for it."""
        return self.type_update and not self.compares

    @property
    def records_before(self) -> bool:
        """Whether the state before a change has to be recorded: to show it, or to see if the change is one."""
        return self.needs_before or (self.type_update and self.compares)
