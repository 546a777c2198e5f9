from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = (ROOT / 'webhooks' / 'version.py').read_text().split("'")[1]
# What an earlier build left in `build/` would go into the wheel: files that were deleted since, migrations too.
BUILD = TemporaryDirectory(prefix='netbox-webhooks-')

# NetBox brings Django, DRF, django-rq, rq, redis and requests in the exact versions it was tested with. A plugin
# that declared them as well would let pip replace them.
setup(
    name='netbox-webhooks',
    version=VERSION,
    description='Reliable webhooks for NetBox: every committed change is sent, at least once, in order per object',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['webhooks', 'webhooks.*']),
    include_package_data=True,
    package_data={'webhooks': ['templates/**/*.html', 'static/**/*']},
    options={'build': {'build_base': BUILD.name}},
    python_requires='>=3.12',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Framework :: Django',
        'Intended Audience :: System Administrators',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
    ],
)
