"""The menu *Webhooks* in NetBox. NetBox reads `menu`."""

from django.utils.translation import gettext_lazy as _
from netbox.context import current_request
from netbox.plugins import PluginMenu, PluginMenuButton, PluginMenuItem


class ItemForAny(PluginMenuItem):
    """An entry for users with any of its permissions. NetBox shows an entry only to users with all of them."""

    @property
    def permissions(self) -> list[str]:
        """Return one permission that the present user has, else all. NetBox asks for each that is named here."""
        request = current_request.get()
        held = [name for name in self._any_of if request and request.user.has_perm(name)]
        return held[:1] or self._any_of

    @permissions.setter
    def permissions(self, names: list[str]) -> None:
        self._any_of = names


def _add(model: str) -> PluginMenuButton:
    return _button(model, 'add', _('Add'), 'mdi-plus-thick')


def _import(model: str) -> PluginMenuButton:
    return _button(model, 'bulk_import', _('Import'), 'mdi-upload')


def _button(model: str, action: str, title: str, icon: str) -> PluginMenuButton:
    link = f'plugins:webhooks:{model}_{action}'
    return PluginMenuButton(link=link, title=title, icon_class=f'mdi {icon}', permissions=[f'webhooks.add_{model}'])


def _item(model: str, text: str, *buttons: PluginMenuButton) -> PluginMenuItem:
    return PluginMenuItem(
        link=f'plugins:webhooks:{model}_list',
        link_text=text,
        permissions=[f'webhooks.view_{model}'],
        buttons=buttons,
    )


status = ItemForAny(
    link='plugins:webhooks:status',
    link_text=_('Status'),
    permissions=['webhooks.view_delivery', 'webhooks.view_webhook'],
)
menu = PluginMenu(
    label=_('Webhooks'),
    icon_class='mdi mdi-webhook',
    groups=(
        (
            _('Webhooks'),
            (
                _item('webhook', _('Webhooks'), _add('webhook'), _import('webhook')),
                _item('credential', _('Credentials'), _add('credential'), _import('credential')),
                _item('definition', _('Definitions'), _add('definition')),
            ),
        ),
        (_('Log'), (status, _item('delivery', _('Deliveries')), _item('event', _('Events')))),
    ),
)
