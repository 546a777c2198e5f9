"""Beside netbox-branching: its branches copy what is change logged, and webhooks are to stay out of them.

A webhook says what is sent now. One that was edited in a branch would not be what the workers read, and the stretches
of its subscription are in the main schema.
"""

from django.apps import apps
from django.db.models import Model


def stay_in_main() -> None:
    """Keep our models out of branches, if the plugin is there. Called by ready()."""
    if apps.is_installed('netbox_branching'):
        from netbox_branching.utilities import register_branching_resolver

        register_branching_resolver(_resolve)


def _resolve(model: type[Model]) -> bool | None:
    """Whether branches support the model; None: others decide."""
    return False if model._meta.app_label == 'webhooks' else None
