"""Adds the tab *Webhooks* to NetBox's objects. It has to run before NetBox builds its URLs."""

from utilities.views import register_model_view

from ..object_types import allowed_models

TAB_VIEW_PATH = 'webhooks.views.objects.ObjectDeliveriesView'


def register() -> None:
    """Register the tab for each model that may be sent and has permissions by object.

    Called once, when NetBox starts.
    """
    for model in allowed_models():
        if hasattr(model.objects, 'restrict'):
            register_model_view(model, 'webhooks', kwargs={'model': model})(TAB_VIEW_PATH)
