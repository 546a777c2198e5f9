"""Without a NetBox, Django gets only the tested modules' settings."""

import os

from django.conf import settings

if 'DJANGO_SETTINGS_MODULE' not in os.environ:
    settings.configure(USE_I18N=False, RQ_DEFAULT_TIMEOUT=300, SECRET_KEY='of unit tests, ' * 4, JINJA_FILTERS={})
