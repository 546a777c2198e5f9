"""The permissions of actions."""

from netbox.api.authentication import TokenPermissions


def post_needs(action: str) -> type[TokenPermissions]:
    """Return a permission class whose POST needs NetBox's permission `action` for the model, not 'add'."""
    needed = {**TokenPermissions.perms_map, 'POST': [f'%(app_label)s.{action}_%(model_name)s']}
    return type(f'{action.title()}Permission', (TokenPermissions,), {'perms_map': needed})
