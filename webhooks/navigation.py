from django.utils.translation import gettext_lazy as _
from netbox.context import current_request
from netbox.plugins import PluginMenu, PluginMenuButton, PluginMenuItem


class ItemForAny(PluginMenuItem):
    """NetBox wants all permissions of an entry; this needs one."""

    @property
    def permissions(self) -> list[str]:
        request = current_request.get()
        held = [name for name in self._any_of if request and request.user.has_perm(name)]
        return held[:1] or self._any_of

    @permissions.setter
    def permissions(self, names: list[str]) -> None:
        self._any_of = names


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
                PluginMenuItem(
                    link='plugins:webhooks:credential_list',
                    link_text=_('Credentials'),
                    permissions=['webhooks.view_credential'],
                    buttons=(
                        PluginMenuButton(
                            link='plugins:webhooks:credential_add',
                            title=_('Add'),
                            icon_class='mdi mdi-plus-thick',
                            permissions=['webhooks.add_credential'],
                        ),
                        PluginMenuButton(
                            link='plugins:webhooks:credential_bulk_import',
                            title=_('Import'),
                            icon_class='mdi mdi-upload',
                            permissions=['webhooks.add_credential'],
                        ),
                    ),
                ),
            ),
        ),
        (
            _('Log'),
            (
                ItemForAny(
                    link='plugins:webhooks:status',
                    link_text=_('Status'),
                    permissions=['webhooks.view_delivery', 'webhooks.view_webhook'],
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
