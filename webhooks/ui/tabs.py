"""Adds the tab *Webhooks* to NetBox's objects, and a button to their lists.

It has to run before NetBox builds its URLs.
"""

from netbox.plugins import register_template_extensions
from utilities.views import register_model_view

from ..object_types import allowed_models
from .list_button import SendNowOnList

TAB_VIEW_PATH = 'webhooks.views.objects.ObjectDeliveriesView'


def register() -> None:
    """Register tab and button for each model that may be sent and has permissions by object.

    Called once, when NetBox starts.
    """
    models = [model for model in allowed_models() if hasattr(model.objects, 'restrict')]
    for model in models:
        register_model_view(model, 'webhooks', kwargs={'model': model})(TAB_VIEW_PATH)
    SendNowOnList.models = [model._meta.label_lower for model in models]
    register_template_extensions([SendNowOnList])
