"""Python imports this when it starts, in each process of the tests and of the demo.

NetBox builds its GraphQL schema while it loads its URLs: half of the processor time of a start, for what few processes
are asked for. Here it is built at its first use. And strawberry looks for the library of maps, GDAL: twice under 13
names, each time with a compiler and a linker. Here there is none.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

SCHEMA = 'netbox.graphql.schema'
GDAL = 'django.contrib.gis.gdal.libgdal'


class Later(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the module with the schema, in place of NetBox's own until somebody uses it."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == SCHEMA else None

    def exec_module(self, module: ModuleType) -> None:
        module.schema = Schema()


class Schema:
    def __getattr__(self, name: str) -> object:
        return getattr(_load().schema, name)


def _load() -> ModuleType:
    if FINDER in sys.meta_path:
        sys.meta_path.remove(FINDER)
        del sys.modules[SCHEMA]
    return importlib.import_module(SCHEMA)


class NoGdal(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the module that looks for GDAL, and says at once that there is none."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == GDAL else None

    def exec_module(self, module: ModuleType) -> None:
        from django.core.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(f'{module.__name__} is not looked for')


FINDER = Later()
sys.meta_path[:0] = [FINDER, NoGdal()]
