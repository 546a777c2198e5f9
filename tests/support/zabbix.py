"""Zabbix from Debian's packages, with PHP's own web server."""

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from devstack.ports import LOOPBACK, accepts, free_port
from devstack.postgres import DatabaseAddress
from devstack.process import wait_until

PAGES, SCHEMA = Path('/usr/share/zabbix'), Path('/usr/share/zabbix-server-pgsql')
# Debian's pages read this file, which belongs to the whole machine.
CONFIGURATION = '/etc/zabbix/zabbix.conf.php'
OF_PAGES = """<?php
$DB = ['TYPE' => 'POSTGRESQL', 'SERVER' => '{host}', 'PORT' => '{port}', 'DATABASE' => '{name}', 'USER' => '{user}',
    'PASSWORD' => '{password}', 'SCHEMA' => '', 'ENCRYPTION' => false, 'DOUBLE_IEEE754' => true];
$ZBX_SERVER = '{loopback}';
$ZBX_SERVER_PORT = '{listens}';
"""
OF_SERVER = """
AllowRoot=1
CacheUpdateFrequency=1
DBHost={host}
DBName={name}
DBPassword={password}
DBPort={port}
DBUser={user}
ListenIP={loopback}
ListenPort={listens}
LogType=console
PidFile={folder}/zabbix.pid
SocketDir={folder}
"""


def is_installed() -> bool:
    programs = shutil.which('zabbix_server', path=f'{os.environ["PATH"]}:/usr/sbin'), shutil.which('php')
    return all(programs) and PAGES.exists() and SCHEMA.exists()


@dataclass
class Zabbix:
    url: str
    session: str = ''

    def log_in(self) -> None:
        self.session = self.call('user.login', username='Admin', password='zabbix')

    def call(self, method: str, *listed: Any, **named: Any) -> Any:
        body = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': listed or named}).encode()
        headers = {'Content-Type': 'application/json-rpc'}
        if self.session:
            headers['Authorization'] = f'Bearer {self.session}'
        with urlopen(Request(self.url, body, headers), timeout=60) as answer:
            said = json.load(answer)
        assert 'result' in said, said
        return said['result']

    def make_item(self, host: str, key: str) -> tuple[str, str]:
        """Return an administrator's token and the trapper item's id."""
        group = self.call('hostgroup.create', name='NetBox')['groupids'][0]
        host_id = self.call('host.create', host=host, groups=[{'groupid': group}])['hostids'][0]
        trapper, text = 2, 4
        item = self.call('item.create', name=key, key_=key, hostid=host_id, type=trapper, value_type=text)
        made = self.call('token.create', name='NetBox')['tokenids'][0]
        return self.call('token.generate', made)[0]['token'], item['itemids'][0]


@contextmanager
def zabbix(folder: Path, address: DatabaseAddress) -> Iterator[Zabbix]:
    database = address.named('zabbix')
    address.execute('CREATE DATABASE {}', database.name)
    try:
        for name in ('schema', 'images', 'data'):
            with database.connect() as connection:
                connection.execute(gzip.decompress((SCHEMA / f'{name}.sql.gz').read_bytes()))
        with _servers(folder, database) as url:
            made = Zabbix(url)
            made.log_in()
            yield made
    finally:
        address.execute('DROP DATABASE {} WITH (FORCE)', database.name)


@contextmanager
def _servers(folder: Path, database: DatabaseAddress) -> Iterator[str]:
    listens, port, pages = free_port(), free_port(), folder / 'pages'
    values = {**vars(database), 'listens': listens, 'loopback': LOOPBACK, 'folder': folder}
    of_server, of_pages = folder / 'server.conf', folder / 'zabbix.conf.php'
    of_server.write_text(OF_SERVER.format(**values))
    of_pages.write_text(OF_PAGES.format(**values))
    shutil.copytree(PAGES, pages, ignore_dangling_symlinks=True)
    reads = pages / 'include/classes/core/CConfigFile.php'
    reads.write_text(reads.read_text().replace(CONFIGURATION, str(of_pages)))
    server = ('/usr/sbin/zabbix_server', '--foreground', '--config', str(of_server))
    web = ('php', '-S', f'{LOOPBACK}:{port}', '-t', str(pages))
    with (
        (folder / 'log').open('w') as log,
        subprocess.Popen(server, stdout=log, stderr=log) as one,
        subprocess.Popen(web, stdout=log, stderr=log) as other,
    ):
        try:
            assert wait_until(lambda: accepts(listens) and accepts(port), timeout=60), (folder / 'log').read_text()
            yield f'http://{LOOPBACK}:{port}/api_jsonrpc.php'
        finally:
            for process in (one, other):
                process.terminate()
