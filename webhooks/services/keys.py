"""Fields that name keys of the payload, with their checks. Which keys are right depends on the object types."""

from . import comparable, expandable

KEYS = {'expand': expandable.check_keys, 'only_if_changed': comparable.check_keys}
