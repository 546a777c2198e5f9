from django.urls import Resolver404, get_script_prefix, resolve


def view_at(path: str) -> type | None:
    """resolve() expects it without SCRIPT_NAME."""
    prefix = get_script_prefix().rstrip('/')
    try:
        view = resolve(path.removeprefix(prefix)).func
    except Resolver404:
        return None
    return getattr(view, 'cls', None)
