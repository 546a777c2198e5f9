"""Snapshots → REST API data, in batches. Everything here depends on NetBox's internals and nothing on the plugin's.

decoding        a table row as JSON → an instance
gone            what was deleted since, from the change log, else by its id
related         what instances point to
derived         counts, cable paths, depths: what is in no snapshot
remains         what is left of that, and what is not, of an object that is gone
configcontext   config contexts of many objects at once
customfields    custom fields that point to objects
parts           what is prepared for speed, and left as NetBox has it where NetBox is not as expected
serializer      NetBox's serializer, prepared to render many
keys            which keys point to what, and what of it is not for everybody
expansion       what objects point to, in place of its brief form
batch           the way through all of these
changelog       the other form of a snapshot: that of NetBox's change log
"""

from .batch import SHOWN, TAKEN_AT, Rendered, left_as_netbox_has_it, prepare, render
from .changelog import change_log
from .gone import NOW

__all__ = ('NOW', 'SHOWN', 'TAKEN_AT', 'Rendered', 'change_log', 'left_as_netbox_has_it', 'prepare', 'render')
