"""The fields of a credential, and which place leaves which of them out.

Forms, the table, filters, the card, the REST API, GraphQL and the admin are made from these. A new field needs a name
in NAMES, and a reason in LEFT_OUT for each place that does without it.
"""

from django.db.models import Field
from django.utils.text import capfirst

from ..models import Credential

# All fields of the model that users may set, in the order of the forms.
NAMES = (
    'name', 'description', 'type', 'hosts', 'username', 'header', 'secret', 'valid_until', 'token_url', 'scope',
    'audience', 'ca_file_path', 'tags',
)  # fmt: skip

_SECRET = 'write-only'
_NETBOX = 'NetBox has it on every page'
# {place: {field: why the place leaves it out}}
LEFT_OUT = {
    'form': {},
    'admin': {'tags': 'NetBox has them'},
    'bulk edit': {'name': 'unique', 'tags': _NETBOX},
    'list': {'secret': _SECRET},
    'card': {'name': "the page's title", 'tags': 'a card of its own'},
    'API': {},
    'filters': {
        'type': 'a filter of its own',
        'hosts': 'a filter of its own',
        'secret': 'a match would reveal it',
        'ca_file_path': 'belongs to one endpoint',
        'tags': _NETBOX,
    },
    'GraphQL': {'secret': _SECRET, 'tags': _NETBOX},
    'copy': {
        'name': 'unique',
        'secret': _SECRET,
        'valid_until': 'another secret ends on another day',
        'ca_file_path': 'belongs to one endpoint',
        'tags': _NETBOX,
    },
}


def shown_in(place: str) -> tuple[str, ...]:
    """Return the names of the fields that a place shows, in their order. `place` is a key of LEFT_OUT."""
    return tuple(name for name in NAMES if name not in LEFT_OUT[place])


def field(name: str) -> Field:
    """Return the model's field of this name."""
    return Credential._meta.get_field(name)


def label(name: str) -> str:
    """Return the field's label, such as 'Valid until'."""
    return capfirst(field(name).verbose_name)
