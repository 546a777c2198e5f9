"""Ends with 0 where workers of this container serve all of its queues, or Redis cannot be asked."""

import os
import socket
import sys
from pathlib import Path

import redis

CHART = Path('/run/config/netbox/netbox.yaml')
QUEUES = sys.argv[1:] or ['high', 'default', 'low']


def address():
    """Where the queue is: from the environment of netbox-docker, or from the files of netbox-chart."""
    if CHART.exists():
        import yaml

        tasks = yaml.safe_load(CHART.read_text())['REDIS']['tasks']
        secret, value = Path('/run/secrets/netbox/tasks_password'), tasks.get
    else:
        secret, value = Path('/run/secrets/redis_password'), lambda name: os.environ.get(f'REDIS_{name}')
    return {
        'host': value('HOST') or 'localhost',
        'port': int(value('PORT') or 6379),
        'db': int(value('DATABASE') or 0),
        'username': value('USERNAME') or None,
        'password': secret.read_text().strip() if secret.exists() else value('PASSWORD') or None,
        'ssl': str(value('SSL')).lower() == 'true',
    }


def served(client):
    """RQ keeps a hash for each worker, which goes by itself where the worker no longer renews it."""
    workers = [client.hmget(key, 'hostname', 'queues') for key in client.smembers('rq:workers')]
    ours = [queues for host, queues in workers if host == socket.gethostname().encode()]
    return {name for queues in ours for name in queues.decode().split(',')}


try:
    missing = set(QUEUES) - served(redis.Redis(**address(), socket_timeout=2, socket_connect_timeout=2))
    if missing:
        sys.exit(f'Nobody here serves {", ".join(sorted(missing))}')
except redis.RedisError as error:
    print(f'Redis cannot be asked: {error}')
