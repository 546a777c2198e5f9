"""NetBox's WSGI application, with static files straight from the installed packages.

In production a web server serves the files that `collectstatic` gathered. Django's handler needs no such step here.
DEBUG would change NetBox's answers to errors, and add a debug toolbar to every page.
"""

from django.contrib.staticfiles.handlers import StaticFilesHandler
from netbox.wsgi import application as netbox

application = StaticFilesHandler(netbox)
