"""Reads a document of webhooks and credentials, and remembers on which line each of its fields stands."""

import codecs
from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import yaml
from django.utils.translation import gettext as _

from ..exceptions import WebhooksError
from ..models import Credential, Webhook
from ..presentation import credential_fields
from ..presentation.fields import shown_in
from ..storable import is_storable

# The source of a document that names none.
DEFAULT_SOURCE = 'netbox'
MAX_SOURCE_CHARS = 100
# Characters that are valid in JSON, but not in YAML: tabs between values, and in texts control characters and line ends
# of Unicode, which YAML reads as blanks.
JSON_TO_YAML = {ord('\t'): ' ', **{one: f'\\u{one:04x}' for one in (*range(0x7F, 0xA0), 0x2028, 0x2029)}}
# {section of a document: its model}. Sections are applied in this order.
SECTIONS = {'credentials': Credential, 'webhooks': Webhook}
# {section: fields of an entry}
FIELDS = {
    'credentials': (*credential_fields.shown_in('API'), 'custom_fields'),
    'webhooks': (*shown_in('API'), 'custom_fields'),
}


class DocumentError(WebhooksError):
    """A document cannot be applied. str() names the place, the field and the error."""

    def __init__(self, reason: str, place: str = '', field: str = '') -> None:
        super().__init__(': '.join(part for part in (place, field, reason) if part))
        self.reason, self.place, self.field = reason, place, field


class Located(dict):
    """A mapping of a YAML document. `line` is where it begins, `lines` where its keys stand. Both count from 1."""

    line = 0
    lines: dict[str, int]


class Entry(NamedTuple):
    """A webhook or a credential of a document. `file` is its name, '' for a document that came through the REST API."""

    section: str
    fields: dict[str, Any]
    file: str = ''

    @property
    def name(self) -> str:
        """Return the name, which identifies the object. NetBox stores it without surrounding blanks."""
        return self.fields['name'].strip()

    def place(self, field: str = '') -> str:
        """Return where the entry, or a field of it, stands: 'webhooks.yaml:12', or 'webhooks "CMDB"' without lines."""
        if isinstance(self.fields, Located):
            return _place(self.fields, self.file, field)
        return f'{self.section} "{self.fields.get("name", "")}"'

    def error(self, field: str, reason: str) -> DocumentError:
        """Return the error for a field of the entry."""
        return DocumentError(reason, self.place(field), field)


class Document(NamedTuple):
    """A document's entries. `source` says who keeps them: only these does a later document of it delete."""

    source: str
    entries: list[Entry]


def read(text: str, file: str) -> Document:
    """Read a document from YAML or JSON. `file` is named in errors. Raises DocumentError."""
    text = text.removeprefix(codecs.BOM_UTF8.decode())
    if text.lstrip().startswith('{'):
        text = text.translate(JSON_TO_YAML)
    try:
        loader = _Loader(text)
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f'{file}:{error.problem_mark.line + 1}' if error.problem_mark else file
        raise DocumentError(_('not valid YAML: {problem}').format(problem=error.problem), line) from None
    except yaml.reader.ReaderError as error:
        line = text.count('\n', 0, error.position) + 1
        raise DocumentError(_('not valid YAML: {problem}').format(problem=error.reason), f'{file}:{line}') from None
    # A value that does not fit its tag, such as `!!bool maybe`, raises a LookupError or an AttributeError.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise DocumentError(_('not valid YAML: {problem}').format(problem=error), file) from None
    return of(found, file)


def of(found: Any, file: str = '') -> Document:
    """Return the document of a parsed value. Raises DocumentError for unknown keys, and for an entry without a name."""
    # A request without a body comes as {}. With --prune it would delete all that the default source made.
    if not isinstance(found, dict) or not found:
        raise DocumentError(_('a document must be a mapping with the keys source, credentials and webhooks'), file)
    for key in found:
        if key not in {'source', *SECTIONS}:
            raise DocumentError(_('a document has no such key'), _place(found, file, key), str(key))
    source = found.get('source') or DEFAULT_SOURCE
    if not isinstance(source, str) or len(source) > MAX_SOURCE_CHARS or not is_storable(source):
        reason = _('enter a text of {limit} characters at most').format(limit=MAX_SOURCE_CHARS)
        raise DocumentError(reason, _place(found, file, 'source'), 'source')
    return Document(source, [entry for section in SECTIONS for entry in _entries(found, section, file)])


def _entries(found: dict[str, Any], section: str, file: str) -> Iterator[Entry]:
    listed = found.get(section) or []
    if not isinstance(listed, list):
        raise DocumentError(_('enter a list'), _place(found, file, section), section)
    for fields in listed:
        if not isinstance(fields, dict):
            raise DocumentError(_('each entry must be a mapping'), _place(found, file, section), section)
        entry = Entry(section, fields, file)
        if not isinstance(fields.get('name'), str) or not entry.name:
            raise entry.error('name', _('enter a name'))
        for field, value in fields.items():
            if field not in FIELDS[section]:
                raise entry.error(str(field), _('there is no such field'))
            if not is_storable(value):
                reason = _('The value contains a character that cannot be stored, or it is nested too deeply.')
                raise entry.error(field, reason)
            fields[field] = _plain(value)
        yield entry


def _place(found: dict[str, Any], file: str, key: Any) -> str:
    """Return where a key stands, or else the mapping: 'webhooks.yaml:12', or only the file's name without lines."""
    return f'{file}:{found.lines.get(key, found.line)}' if isinstance(found, Located) else file


def _plain(value: Any) -> Any:
    """Return the value as JSON has it: NetBox's conditions take plain mappings only, YAML has dates and any keys."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(below) for key, below in value.items()}
    return [_plain(below) for below in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but mappings are Located, a key may not stand twice, and there are no aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A few lines of nested aliases stand for more values than fit into memory.
        if self.check_event(yaml.AliasEvent):
            problem = _('aliases are not supported: write it out')
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Located:
    found = Located(loader.construct_mapping(node, deep=True))
    found.line = node.start_mark.line + 1
    found.lines = {}
    for key_node, _value in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found.lines:
            raise yaml.MarkedYAMLError(problem=f'{key} stands here twice', problem_mark=key_node.start_mark)
        found.lines[key] = key_node.start_mark.line + 1
    return found


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return a text. JSON may write a character as two escapes, which YAML takes for two characters."""
    return loader.construct_scalar(node).encode('utf-16', 'surrogatepass').decode('utf-16', 'surrogatepass')


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, _text)
