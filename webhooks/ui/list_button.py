"""Puts *Send now* on NetBox's lists of objects. Plugins cannot add to the actions below a list, but to those above."""

from django.urls import reverse
from netbox.plugins import PluginTemplateExtension

from ..services.actions import SEND_NOW


class SendNowOnList(PluginTemplateExtension):
    """The button above a list: for the selected objects, and without any for all that the filter finds.

    ui/tabs.py sets `models` and registers it.
    """

    models: list[str] = []

    def list_buttons(self) -> str:
        """Return the button's HTML, '' if the user may not send."""
        request, model = self.context['request'], self.context['object']
        if not request.user.has_perm(SEND_NOW.full_permission):
            return ''
        url = reverse('plugins:webhooks:send_now', args=[model._meta.label_lower])
        shown = {'url': url, 'return_url': request.get_full_path(), 'action': SEND_NOW}
        return self.render('webhooks/buttons/send_from_list.html', shown)
