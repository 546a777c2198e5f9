"""Keeps our models out of the branches of netbox-branching, because workers read the main schema only.

outbox/merges.py has their merges.
"""

from django.apps import apps
from django.db.models import Model


def is_installed() -> bool:
    """Return whether NetBox has netbox-branching."""
    return apps.is_installed('netbox_branching')


def stay_in_main() -> None:
    """Tell netbox-branching, if it is installed, that our models have no copies in branches."""
    if is_installed():
        from netbox_branching.utilities import register_branching_resolver

        register_branching_resolver(_resolve)


def _resolve(model: type[Model]) -> bool | None:
    return False if model._meta.app_label == 'webhooks' else None
