from django.urls import include, path
from utilities.urls import get_model_urls

from . import views  # noqa: F401  (registers the views)

urlpatterns = [
    path('webhooks/', include(get_model_urls('webhooks', 'webhook', detail=False))),
    path('webhooks/<int:pk>/', include(get_model_urls('webhooks', 'webhook'))),
    path('deliveries/', include(get_model_urls('webhooks', 'delivery', detail=False))),
    path('deliveries/<int:pk>/', include(get_model_urls('webhooks', 'delivery'))),
    path('events/', include(get_model_urls('webhooks', 'event', detail=False))),
    path('events/<int:pk>/', include(get_model_urls('webhooks', 'event'))),
]
