"""Snapshots → REST API data, in batches. Everything here depends on NetBox's internals and nothing on the plugin's.

decoding        a table row as JSON → an instance
gone            what was deleted since, from the change log, else by its id
related         what instances point to
derived         counts, cable paths, depths: what is in no snapshot
configcontext   config contexts of many objects at once
customfields    custom fields that point to objects
serializer      NetBox's serializer, prepared to render many
batch           the way through all of these
changelog       the other form of a snapshot: that of NetBox's change log
"""

from .batch import Rendered, render
from .changelog import change_log

__all__ = ('Rendered', 'change_log', 'render')
