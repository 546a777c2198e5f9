"""NetBox's WSGI application, with the static files served straight from the installed packages.

In production a web server serves what `collectstatic` gathered. Django's own handler does it here without that step,
and without DEBUG, which would change how NetBox answers errors and add a debug toolbar to every page.
"""

from django.contrib.staticfiles.handlers import StaticFilesHandler
from netbox.wsgi import application as netbox

application = StaticFilesHandler(netbox)
