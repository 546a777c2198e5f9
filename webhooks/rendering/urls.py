"""Finds the views of NetBox's URLs."""

from django.urls import Resolver404, get_script_prefix, resolve


def view_at(path: str) -> type | None:
    """Return the class of the view at a path, such as "/api/dcim/sites/1/". None: the REST API has no view there.

    With BASE_PATH the path has it as prefix; resolve() expects it without.
    """
    prefix = get_script_prefix().rstrip('/')
    try:
        view = resolve(path.removeprefix(prefix)).func
    except Resolver404:
        return None
    return getattr(view, 'cls', None)
