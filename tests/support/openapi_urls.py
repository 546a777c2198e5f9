"""Our part of the REST API beside the one of NetBox that has webhooks too. All of NetBox takes ten times as long."""

from django.urls import include, path

from webhooks.api.urls import urlpatterns as ours

urlpatterns = [
    path('api/extras/', include('extras.api.urls')),
    path('api/plugins/webhooks/', include((ours, 'webhooks-api'))),
]
