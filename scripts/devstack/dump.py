"""`scripts/dump`: writes the dump that databases begin with, by `empty_netbox`."""

from pathlib import Path

from devstack import empty_netbox
from devstack.database import TEMPLATE, PrivateTemplate
from devstack.folders import run_folder
from devstack.postgres import PostgresServer
from devstack.process import Processes
from devstack.redis import RedisServer
from devstack.stack import Stack


def main(arguments: list[str]) -> int:
    with run_folder() as folder:
        processes = Processes(folder / 'logs')
        try:
            empty_netbox.write(_server(folder, processes).address.named(TEMPLATE))
        finally:
            processes.stop_all()
    return 0


def _server(folder: Path, processes: Processes) -> PostgresServer:
    redis = RedisServer('redis', folder, processes)
    redis.start()
    stack = Stack(folder, processes, redis.address, redis.address, private_redis=True)
    server = PostgresServer(folder / 'postgres', processes)
    PrivateTemplate(server, stack.netbox_on).prepare_netbox()
    return server
