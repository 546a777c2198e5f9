from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from dcim.models import Site
from redis import RedisError
from support.builders import subscribe
from support.engine import deliveries

from devstack.ports import LOOPBACK, free_port
from devstack.process import Processes, wait_until
from devstack.receiver import Receiver
from devstack.redis import RedisAddress, RedisServer
from webhooks.choices import StatusChoices

pytestmark = pytest.mark.usefixtures('committed')

SERVICE = 'netbox'
PATIENCE = 60
SAVE = "from dcim.models import Site; Site.objects.create(name='Bern', slug='bern')"


@pytest.fixture
def sentinel(other_redis: RedisServer, processes: Processes, tmp_path: Path) -> Iterator[RedisAddress]:
    """It watches the third Redis server."""
    address = RedisAddress(LOOPBACK, free_port())
    configuration = tmp_path / 'sentinel.conf'
    configuration.write_text(
        f'port {address.port}\nbind {LOOPBACK}\ndir {tmp_path}\n'
        f'sentinel monitor {SERVICE} {LOOPBACK} {other_redis.port} 1\n'
    )
    child = processes.start('redis-sentinel', ['redis-server', str(configuration), '--sentinel'], folder=tmp_path)
    child.wait_until_ready(lambda: knows_its_master(address))
    yield address
    processes.stop(child)


def knows_its_master(sentinel: RedisAddress) -> bool:
    with suppress(RedisError), sentinel.client() as client:
        return client.sentinel_get_master_addr_by_name(SERVICE) is not None
    return False


def test_a_save_is_announced_and_a_worker_delivers(sentinel, other_redis, make_netbox, rqworker, receiver: Receiver):
    subscribe(receiver.url('/hook'), Site)
    tasks = {'SENTINELS': [(sentinel.host, sentinel.port)], 'SENTINEL_SERVICE': SERVICE, 'DATABASE': 0}
    netbox = make_netbox(f"REDIS['tasks'] = {tasks}")
    assert 'wake_up=failed' not in netbox.warm.run('shell', '-c', SAVE)
    with other_redis.address.client() as client:
        assert client.llen('rq:queue:low') == 1
    rqworker(netbox=netbox, redis=other_redis.address)
    receiver.wait_for(1, timeout=PATIENCE)
    assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == 1, timeout=PATIENCE)
