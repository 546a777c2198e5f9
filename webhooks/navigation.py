from django.utils.translation import gettext_lazy as _
from netbox.plugins import PluginMenu, PluginMenuButton, PluginMenuItem

menu = PluginMenu(
    label=_('Webhooks'),
    icon_class='mdi mdi-webhook',
    groups=(
        (
            _('Webhooks'),
            (
                PluginMenuItem(
                    link='plugins:webhooks:webhook_list',
                    link_text=_('Webhooks'),
                    permissions=['webhooks.view_webhook'],
                    buttons=(
                        PluginMenuButton(
                            link='plugins:webhooks:webhook_add',
                            title=_('Add'),
                            icon_class='mdi mdi-plus-thick',
                            permissions=['webhooks.add_webhook'],
                        ),
                        PluginMenuButton(
                            link='plugins:webhooks:webhook_bulk_import',
                            title=_('Import'),
                            icon_class='mdi mdi-upload',
                            permissions=['webhooks.add_webhook'],
                        ),
                    ),
                ),
            ),
        ),
        (
            _('Log'),
            (
                PluginMenuItem(
                    link='plugins:webhooks:status',
                    link_text=_('Status'),
                    permissions=['webhooks.view_delivery'],
                ),
                PluginMenuItem(
                    link='plugins:webhooks:delivery_list',
                    link_text=_('Deliveries'),
                    permissions=['webhooks.view_delivery'],
                ),
                PluginMenuItem(
                    link='plugins:webhooks:event_list',
                    link_text=_('Events'),
                    permissions=['webhooks.view_event'],
                ),
            ),
        ),
    ),
)
