"""Puts the admin into NetBox: URLs, templates, and the attribute of users that Django's admin asks for."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import Warning as CheckWarning
from django.core.checks import register
from django.urls import Resolver404, resolve

from .. import conf

# NetBox's own, read before `install` changes the setting.
previous_urlconf = settings.ROOT_URLCONF
TEMPLATES_FOLDER = Path(__file__).parents[1] / 'templates'


def install() -> None:
    """Change NetBox's settings and its user model. Called once, when NetBox starts with the setting `admin`.

    The admin and django-rq need `is_staff`. A middleware would not do: workers and commands call `reverse()` too.
    """
    settings.ROOT_URLCONF = 'webhooks.django_admin.urlconf'
    get_user_model().is_staff = property(_is_staff, _ignore)
    # Some of our templates replace others by their name. A plugin's app comes too late in the search for that.
    settings.TEMPLATES[0]['DIRS'].append(str(TEMPLATES_FOLDER))


def _is_staff(user) -> bool:
    return user.is_active and user.is_superuser


def _ignore(user, value: bool) -> None:
    """Let remote and LDAP authentication set `is_staff`, which has no effect here."""


@register('webhooks')
def nothing_is_hidden(app_configs: Any, **kwargs: Any) -> list[CheckWarning]:
    """Warn if our admin hides another page at its address, since our URLs come before all others.

    Django runs it with its system checks, as webhooks.W005.
    """
    path = f'/{settings.BASE_PATH}admin/'
    try:
        hidden = resolve(path, previous_urlconf).func
    except Resolver404:
        return []
    if not conf.get().admin:
        return []
    return [
        CheckWarning(
            f"The plugin's admin at {path} hides another page at this address: {hidden.__module__}.",
            hint="To see that page, set WEBHOOKS_ADMIN = False. NetBox's own pages offer the same as the admin.",
            id='webhooks.W005',
        )
    ]
