"""A Redis user may be limited to RQ's own keys."""

from dcim.models import Site
from django.db import transaction
from support.builders import subscribe
from support.engine import deliveries

from devstack.process import wait_until
from devstack.receiver import Receiver
from devstack.redis import RedisServer
from webhooks.choices import StatusChoices

PATIENCE = 60
ENDED = {StatusChoices.DELIVERED, StatusChoices.FAILED}
SAVE = "from dcim.models import Site; Site.objects.create(name='Bern', slug='bern')"


def test_it_is_all_that_webhooks_need(other_redis: RedisServer, make_netbox, rqworker, receiver: Receiver):
    with transaction.atomic():
        subscribe(receiver.url('/hook'), Site)
        subscribe(receiver.url('/broken'), Site, max_attempts=1)
    receiver.answers('/broken', 500)
    with other_redis.address.client() as client:
        permitted = {'keys': ['rq:*'], 'channels': ['rq:*'], 'categories': ['+@all']}
        client.acl_setuser('netbox', enabled=True, passwords=['+sesame'], **permitted)
    tasks = {'HOST': other_redis.address.host, 'PORT': other_redis.port, 'USERNAME': 'netbox', 'PASSWORD': 'sesame'}
    netbox = make_netbox(f"REDIS['tasks'] = {tasks}")

    assert 'wake_up=failed' not in netbox.warm.run('shell', '-c', SAVE)
    rqworker(netbox=netbox, redis=other_redis.address)
    receiver.wait_for(2, timeout=PATIENCE)
    with other_redis.address.client() as client:
        # RQ's page of failed jobs reads this key.
        assert wait_until(lambda: client.zcard('rq:failed:low') == 1, timeout=PATIENCE)
        assert wait_until(lambda: {one.status for one in deliveries()} == ENDED, timeout=PATIENCE)
