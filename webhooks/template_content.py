"""Puts buttons on all tabs of a webhook. NetBox's own tabs know no buttons of plugins."""

from netbox.plugins import PluginTemplateExtension

from .models import Webhook
from .ui.buttons import Button, More, buttons


class WebhookButtons(PluginTemplateExtension):
    """The buttons beside a webhook's title: those that the user may use, then a menu with the rest."""

    models = ['webhooks.webhook']

    def buttons(self) -> str:
        """Return the buttons' HTML. NetBox calls it for each of the webhook's tabs."""
        return ''.join(
            one.render(self.context, self.context['object']) for one in (*filter(self._may, buttons(Webhook)), More)
        )

    def _may(self, button: type[Button]) -> bool:
        return self.context['request'].user.has_perm(button.action.full_permission)


template_extensions = [WebhookButtons]
