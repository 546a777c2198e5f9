"""Adds our tab to models, before NetBox builds the URLs."""

from utilities.views import register_model_view

from ..object_types import allowed_models

VIEW = 'webhooks.views.objects.ObjectDeliveriesView'


def register() -> None:
    for model in allowed_models():
        if hasattr(model.objects, 'restrict'):
            register_model_view(model, 'webhooks', kwargs={'model': model})(VIEW)
