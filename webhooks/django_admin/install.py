from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model

previous_urlconf = settings.ROOT_URLCONF
TEMPLATES = Path(__file__).parents[1] / 'templates'


def install() -> None:
    """Make our URLconf the root, and add `is_staff`, which the admin and django-rq need.

    A middleware would not do: workers and commands call `reverse()` too.
    """
    settings.ROOT_URLCONF = 'webhooks.django_admin.urlconf'
    get_user_model().is_staff = property(_is_staff, _ignore)
    # A plugin's app comes too late to replace these templates.
    settings.TEMPLATES[0]['DIRS'].append(str(TEMPLATES))


def _is_staff(user) -> bool:
    return user.is_active and user.is_superuser


def _ignore(user, value: bool) -> None:
    """Remote and LDAP authentication set `is_staff`."""
