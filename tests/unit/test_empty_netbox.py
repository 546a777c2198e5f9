import pytest

from devstack import empty_netbox


@pytest.fixture(autouse=True)
def dumps(tmp_path, monkeypatch):
    monkeypatch.setattr(empty_netbox, 'FOLDER', tmp_path)
    for version in ('4.6.9', '4.7.0', '4.7.3', '4.7.10'):
        (tmp_path / f'netbox-{version}.sql.xz').touch()


@pytest.mark.parametrize(
    ('netbox', 'expected'),
    [('4.7.0', '4.7.0'), ('4.7.2', '4.7.0'), ('4.7.9', '4.7.3'), ('4.7.11', '4.7.10'), ('4.6.10', '4.6.9')],
)
def test_a_netbox_begins_with_the_newest_dump_that_is_not_newer(netbox, expected):
    assert empty_netbox.best_for(netbox).name == f'netbox-{expected}.sql.xz'


@pytest.mark.parametrize('netbox', ['4.8.0', '4.6.0', '5.0.0-beta1'])
def test_a_netbox_without_a_dump_begins_with_its_migrations(netbox):
    assert empty_netbox.best_for(netbox) is None
