"""Without a NetBox, Django gets the few settings that the tested modules read."""

import os

from django.conf import settings

if 'DJANGO_SETTINGS_MODULE' not in os.environ:
    settings.configure(USE_I18N=False, RQ_DEFAULT_TIMEOUT=300, SECRET_KEY='of unit tests, ' * 4, JINJA_FILTERS={})
