"""Puts Django's admin and the status page into NetBox, which ships neither."""

from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model

# The URLconf that was the root before ours.
previous_urlconf = settings.ROOT_URLCONF
TEMPLATES = Path(__file__).parents[1] / 'templates'


def install() -> None:
    """Make our URLconf the root, and give NetBox's users the `is_staff` that admin and django-rq ask for.

    A URLconf rather than a middleware that sets `request.urlconf`, so that `reverse()` finds the admin's pages in
    workers and commands too.
    """
    settings.ROOT_URLCONF = 'webhooks.django_admin.urlconf'
    get_user_model().is_staff = property(_is_staff, _ignore)
    # A plugin's app comes last, so our templates for pages of the admin and of django-rq would not be found.
    settings.TEMPLATES[0]['DIRS'].append(str(TEMPLATES))


def _is_staff(user) -> bool:
    return user.is_active and user.is_superuser


def _ignore(user, value: bool) -> None:
    """Remote and LDAP authentication set `is_staff`; here it follows from `is_superuser`."""
