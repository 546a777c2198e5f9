from tempfile import TemporaryDirectory

from setuptools import setup

# What the package is stands in pyproject.toml. What an earlier build left in `build/` would go into the wheel: files
# that were deleted since, migrations too.
BUILD = TemporaryDirectory(prefix='netbox-webhooks-')
setup(options={'build': {'build_base': BUILD.name}})
