"""Marks for tests of an object of each kind, whose maker is the argument `make`."""

import pytest

from support.cases import named
from support.objects import MAKERS, VARIANTS

KINDS = MAKERS | VARIANTS
# What NetBox shows in a way of its own: config contexts, cables, generic relations, trees, terminations.
# tests/integration/rendering/test_rendering.py renders all kinds in any case, other tests with --long.
ALWAYS = ('dcim.device', 'dcim.interface', 'ipam.ipaddress', 'ipam.prefix', 'circuits.circuit')

every_kind = pytest.mark.parametrize('make', KINDS.values(), ids=KINDS)
some_kinds = pytest.mark.parametrize('make', named(ALWAYS, KINDS))
