from netbox.api.authentication import TokenPermissions


def post_needs(action: str) -> type[TokenPermissions]:
    """For POST, not 'add'."""
    needed = {**TokenPermissions.perms_map, 'POST': [f'%(app_label)s.{action}_%(model_name)s']}
    return type(f'{action.title()}Permission', (TokenPermissions,), {'perms_map': needed})
