"""The routes of the REST API."""

from django.urls import path
from netbox.api.routers import NetBoxRouter

from . import apply, failures, views

router = NetBoxRouter()
router.APIRootView = views.WebhooksRootView
router.register('webhooks', views.WebhookViewSet)
router.register('credentials', views.CredentialViewSet)
router.register('definitions', views.DefinitionViewSet)
router.register('events', views.EventViewSet)
router.register('deliveries', views.DeliveryViewSet)
router.register('failures', failures.FailureViewSet, basename='failure')
urlpatterns = [path('apply/', apply.ApplyView.as_view(), name='webhook-apply'), *router.urls]
