"""The views of the REST API by what reverse() and its answers call them."""

from django.urls import Resolver404, get_script_prefix, resolve


def view_at(path: str) -> type | None:
    """Return the class of the view that answers at a path, None where there is none.

    A web server may serve NetBox below a prefix (SCRIPT_NAME): reverse() writes it, resolve() does not take it off.
    """
    prefix = get_script_prefix().rstrip('/')
    try:
        view = resolve(path.removeprefix(prefix)).func
    except Resolver404:
        return None
    return getattr(view, 'cls', None)
