"""The admin site at /admin/, and which users may enter."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.utils.translation import gettext_lazy as _
from django_rq.settings import get_queues_map

from .. import conf


class WebhooksAdminSite(AdminSite):
    """The site of our models. Only active superusers may enter; the log-in is NetBox's own."""

    site_header = _('NetBox webhooks')
    site_title = _('NetBox webhooks')
    site_url = reverse_lazy('home')
    index_title = _('Webhooks')
    enable_nav_sidebar = False

    def register(self, model_or_iterable: type[models.Model] | Iterable, admin_class: Any = None, **options) -> None:
        """Register our models, and pass over all others that apps register."""
        given = [model_or_iterable] if isinstance(model_or_iterable, type) else model_or_iterable
        ours = [model for model in given if model._meta.app_label == 'webhooks']
        if ours:
            super().register(ours, admin_class, **options)

    def has_permission(self, request: HttpRequest) -> bool:
        return request.user.is_active and request.user.is_superuser

    def admin_view(self, view: Callable, cacheable: bool = False) -> Callable:
        """Wrap a view: anonymous visitors go to NetBox's login, and other users get 403."""
        admitted = super().admin_view(view, cacheable)

        @wraps(admitted)
        def guarded(request: HttpRequest, *args, **kwargs) -> HttpResponse:
            if not self.has_permission(request):
                return self._turn_away(request, request.get_full_path())
            return admitted(request, *args, **kwargs)

        return guarded

    def login(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        if self.has_permission(request):
            return redirect('admin:index')
        return self._turn_away(request, request.GET.get('next', reverse('admin:index')))

    def logout(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        return redirect('logout')

    def password_change(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        return redirect('account:change_password')

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Add our queue to the context of all pages."""
        settings = conf.get()
        return {
            **super().each_context(request),
            'webhooks_queue': {
                'name': settings.queue,
                'index': get_queues_map()[settings.queue],
                'worker': settings.worker,
            },
        }

    def _turn_away(self, request: HttpRequest, wanted: str) -> HttpResponse:
        """Return a redirect to NetBox's login. Raises PermissionDenied for a user who is logged in already."""
        if request.user.is_authenticated:
            raise PermissionDenied
        return redirect_to_login(wanted, reverse('login'))
