"""docs/rest-api.md, made from NetBox's OpenAPI description:  python -m devstack.rest_reference schema.yaml"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from devstack.folders import CHECKOUT

PAGE = CHECKOUT / 'docs' / 'rest-api.md'
PREFIX = '/api/plugins/webhooks/'
HEAD = f"""# REST API

For people who write programs. All paths are below `{PREFIX}`. NetBox's own page
`/api/schema/swagger-ui/` has each field and filter.

| request | does |
|---|---|
"""
# NetBox's own descriptions of usual actions.
USUAL = re.compile(r'^(Get|Post|Put|Patch|Delete) a .*objects?$')
TAIL = r"""
A webhook has [the fields of the forms](configuration.md#fields-of-a-webhook), and `preset` when it is new. In answers
`additional_headers` and `payload_url` are masked, and `secret` is missing. `health` says how the endpoint does.

Masked values follow one rule. If you send a mask back, the stored value stays: in `payload_url`, in each
`Name: ********` of `additional_headers`, and in `"secret": "********"`, which credentials have too. A new object needs
the values themselves. A webhook that moves to another host needs the values of its headers: 400 names the field.

`fingerprints` has a digest of each of these values, such as `{"secret": "5f0c…", "additional_headers": ""}`. It changes
if and only if the value does, so a tool sees whether somebody has replaced its value. It depends on NetBox's
`SECRET_KEY` and on the object, and is null for users who may not change the object.

An asterisk marks a field that a request needs. Fields that the reader may not see are null, and `restricted` is true.
503 means too many tests or previews at once: try again.
"""


def page(schema: Mapping[str, Any]) -> str:
    components = schema['components']['schemas']
    return HEAD + ''.join(requests(schema['paths'], components)) + TAIL


def requests(paths: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    for path, item in sorted(paths.items()):
        if path.startswith(PREFIX):
            usual = [method for method, operation in item.items() if USUAL.search(summary(operation))]
            if usual and not path.endswith('/{id}/'):
                yield row(usual, path, 'as in NetBox, also with `{id}/`')
            for method in [name for name in item if name not in usual]:
                fields = names(fields_of(item[method], components))
                yield row([method], path, f'{summary(item[method])}{fields and f" ({fields})"}')


def row(methods: Iterable[str], path: str, does: str) -> str:
    return f'| `{", ".join(methods).upper()} {path.removeprefix(PREFIX)}` | {does} |\n'


def summary(operation: Mapping[str, Any]) -> str:
    return operation.get('description', '').partition('\n')[0].rstrip('.')


def fields_of(operation: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, bool]:
    """Return the names of the fields that a request takes, and whether it needs them."""
    content = operation.get('requestBody', {}).get('content', {}).get('application/json', {})
    component = content.get('schema', {}).get('$ref', '').rpartition('/')[2]
    if not component.startswith('Webhook'):
        return {}
    shape = components[component]
    return {name: name in shape.get('required', ()) for name in shape['properties']}


def names(fields: Mapping[str, bool]) -> str:
    return ', '.join(f'`{name}`{"*" if is_needed else ""}' for name, is_needed in fields.items())


if __name__ == '__main__':
    PAGE.write_text(page(yaml.safe_load(Path(sys.argv[1]).read_text())))
