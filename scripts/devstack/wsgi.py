"""NetBox's WSGI application with static files, for which production needs `collectstatic` and a web server.

DEBUG would change NetBox's answers to errors, and add a debug toolbar to every page.
"""

from django.contrib.staticfiles.handlers import StaticFilesHandler
from netbox.wsgi import application as netbox

application = StaticFilesHandler(netbox)
