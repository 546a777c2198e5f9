"""Puts buttons on all tabs of a webhook. NetBox's own tabs know no buttons of plugins."""

from netbox.plugins import PluginTemplateExtension
from utilities.permissions import get_permission_for_model

from .ui.buttons import Button, More, Pause, Resume, SendTest

# In their order. The menu of all other actions follows.
BUTTONS = (SendTest, Pause, Resume)


class WebhookButtons(PluginTemplateExtension):
    """The buttons beside a webhook's title: those that the user may use, then a menu with the rest."""

    models = ['webhooks.webhook']

    def buttons(self) -> str:
        """Return the buttons' HTML. NetBox calls it for each of the webhook's tabs."""
        return ''.join(one.render(self.context, self.context['object']) for one in (*filter(self._may, BUTTONS), More))

    def _may(self, button: type[Button]) -> bool:
        permission = get_permission_for_model(self.context['object'], button.action.permission)
        return self.context['request'].user.has_perm(permission)


template_extensions = [WebhookButtons]
