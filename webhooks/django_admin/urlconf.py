"""NetBox's URLs with ours before them, below BASE_PATH. `install` makes this the root."""

from importlib import import_module

from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django_rq.urls import app_name, get_admin_urlpatterns, get_api_urlpatterns

from .. import metrics
from .install import previous_urlconf
from .rq_errors import answered

_previous = import_module(previous_urlconf)

# As `django_rq.urls`, but the admin decides which users may enter, and errors are answered.
_status_page = [
    *get_api_urlpatterns(),
    *get_admin_urlpatterns(view_wrapper=lambda view: admin.site.admin_view(answered(view))),
]

urlpatterns = [
    path(f'{settings.BASE_PATH}admin/webhook-backend-status/', include((_status_page, app_name))),
    path(f'{settings.BASE_PATH}admin/', admin.site.urls),
    *([path(f'{settings.BASE_PATH}metrics', metrics.export)] if settings.METRICS_ENABLED else []),
    *_previous.urlpatterns,
]

handler404 = _previous.handler404
handler500 = _previous.handler500
