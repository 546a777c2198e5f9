from collections.abc import Callable

import pytest
from dcim.filtersets import SiteFilterSet
from django.db.models import QuerySet
from netbox.registry import registry


@pytest.fixture
def filtered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[QuerySet], QuerySet]], None]:
    """Filter sites as a plugin would."""

    def by(narrow: Callable[[QuerySet], QuerySet]) -> None:
        class Filtered(SiteFilterSet):
            @property
            def qs(self) -> QuerySet:
                return narrow(super().qs)

        monkeypatch.setitem(registry['filtersets'], 'dcim.site', Filtered)

    return by
