"""Puts *Send now* and *Webhook for this list* on NetBox's lists of objects.

Plugins cannot add to the actions below a list, but to those above.
"""

from django.contrib.contenttypes.models import ContentType
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from netbox.plugins import PluginTemplateExtension
from utilities.permissions import get_permission_for_model
from utilities.views import get_viewname

from .. import list_filters
from ..models import Webhook
from ..services.actions import SEND_NOW


class SendNowOnList(PluginTemplateExtension):
    """The buttons above a list: for the selected objects, and without any for all that the filter finds.

    ui/tabs.py sets `models` and registers it.
    """

    models: list[str] = []

    def list_buttons(self) -> str:
        """Return the HTML of the buttons that the user may use.

        None on other pages than the model's own list, such as Interface Connections: no filter of the list says which
        objects these show.
        """
        request = self.context['request']
        if request.resolver_match.view_name != get_viewname(self.context['object'], 'list'):
            return ''
        shown = [
            (SEND_NOW.full_permission, self._send_now),
            (get_permission_for_model(Webhook, 'add'), self._subscribe),
        ]
        buttons = [button() for permission, button in shown if request.user.has_perm(permission)]
        script = format_html('<script src="{}"></script>', static('webhooks/list.js')) if buttons else ''
        return ''.join([*buttons, script])

    def _send_now(self) -> str:
        request, model = self.context['request'], self.context['object']
        url = reverse('plugins:webhooks:send_now', args=[model._meta.label_lower])
        shown = {'url': url, 'return_url': request.get_full_path(), 'action': SEND_NOW}
        return self.render('webhooks/buttons/send_from_list.html', shown)

    def _subscribe(self) -> str:
        """Return a link to a new webhook that subscribes to the list with its current filters."""
        model, query = self.context['object'], self.context['request'].GET.copy()
        for beside in list_filters.BESIDE:
            query.pop(beside, None)
        chosen = {
            'object_types': ContentType.objects.get_for_model(model).pk,
            'filters': f'{model._meta.label_lower}: ?{query.urlencode()}',
        }
        url = f'{reverse("plugins:webhooks:webhook_add")}?{urlencode(chosen)}'
        shown = {'url': url, 'id': 'webhooks-subscribe', 'icon': 'webhook', 'label': _('Webhook for this list')}
        return self.render('webhooks/buttons/link.html', shown)
