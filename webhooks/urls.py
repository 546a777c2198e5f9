"""The URLs of NetBox's pages for our models, below /plugins/webhooks/.

Our metrics are here only without the admin: with it, NetBox's own address has them too (django_admin/urlconf.py).
"""

from django.conf import settings
from django.urls import include, path
from utilities.urls import get_model_urls

from . import conf, metrics, views

_HAS_METRICS = settings.METRICS_ENABLED and not conf.get().admin

urlpatterns = [
    path('status/', views.status.StatusView.as_view(), name='status'),
    path('send/<str:label>/', views.send_now.SendNowView.as_view(), name='send_now'),
    path('webhooks/', include(get_model_urls('webhooks', 'webhook', detail=False))),
    path('webhooks/<int:pk>/', include(get_model_urls('webhooks', 'webhook'))),
    path('credentials/', include(get_model_urls('webhooks', 'credential', detail=False))),
    path('credentials/<int:pk>/', include(get_model_urls('webhooks', 'credential'))),
    path('definitions/', include(get_model_urls('webhooks', 'definition', detail=False))),
    path('definitions/<int:pk>/', include(get_model_urls('webhooks', 'definition'))),
    path('deliveries/', include(get_model_urls('webhooks', 'delivery', detail=False))),
    path('deliveries/<int:pk>/', include(get_model_urls('webhooks', 'delivery'))),
    path('events/', include(get_model_urls('webhooks', 'event', detail=False))),
    path('events/<int:pk>/', include(get_model_urls('webhooks', 'event'))),
    *([path('metrics', metrics.export_ours, name='metrics')] if _HAS_METRICS else []),
]
