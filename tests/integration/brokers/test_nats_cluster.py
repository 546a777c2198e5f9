"""A NATS cluster of three servers: a stream without a leader is away, and no message is refused meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.brokers import NatsReader, sending
from support.settings import change_settings

from devstack.brokers import Nats
from devstack.ports import LOOPBACK, free_port
from devstack.process import Processes, wait_until

# Seconds: the servers need some to choose a leader. A message waits so long for its confirmation.
PATIENCE, SHORT = 120.0, 2.0


@dataclass
class Member(Nats):
    """`routes`: where the servers talk to each other, its own first."""

    routes: tuple[int, ...] = ()

    def _command(self) -> list[str]:
        command = super()._command()
        others = ', '.join(f'"nats://{LOOPBACK}:{port}"' for port in self.routes)
        with (self.folder / 'nats.conf').open('a') as configuration:
            configuration.write(
                f'server_name: "{self.port}"\n'
                f'cluster {{ name: netbox, listen: "{LOOPBACK}:{self.routes[0]}", routes: [{others}] }}\n'
            )
        return command


class Cluster:
    """Three servers, and a stream that each of them keeps."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.servers = [server for member in members for server in member.options['servers']]

    def prepare(self) -> None:
        async def add(stream: Any) -> None:
            await stream.add_stream(name='NETBOX', subjects=['netbox.>'], num_replicas=len(self.members))

        assert wait_until(lambda: self._is_done(add), PATIENCE, interval=0.5)

    def leader(self) -> Member:
        async def ask(stream: Any) -> str:
            return (await stream.stream_info('NETBOX')).cluster.leader

        name = NatsReader(self.members[0])._with(ask)
        return next(member for member in self.members if str(member.port) == name)

    def _is_done(self, work: Any) -> bool:
        from nats.errors import Error

        try:
            NatsReader(self.members[0])._with(work)
        except (Error, OSError):  # they do not know each other yet
            return False
        return True


@pytest.fixture
def cluster(stack: Any, processes: Processes) -> Iterator[Cluster]:
    ports = [free_port() for _ in range(3)]
    members = [
        Member(stack.folder / f'nats-{port}', processes, routes=(port, *(other for other in ports if other != port)))
        for port in ports
    ]
    for member in members:
        member.start()
    made = Cluster(members)
    made.prepare()
    yield made
    for member in members:
        member.stop()


def test_a_killed_leader_is_replaced_and_no_message_is_refused_meanwhile(cluster: Cluster, monkeypatch):
    change_settings(monkeypatch, brokers={'bus': {'driver': 'nats', 'servers': cluster.servers}})
    with sending(NatsReader(cluster.members[0])) as send:
        assert send().error == ''
        leader = cluster.leader()
        leader.kill()
        outcomes = []

        def goes_on() -> bool:
            outcomes.append(send(timeout=SHORT))
            return outcomes[-1].succeeded

        assert wait_until(goes_on, PATIENCE, interval=0.2)
        assert len(outcomes) > 1
        assert {one.unreachable for one in outcomes[:-1]} == {True}, outcomes
        # A subject that no stream ever took is still refused, once the servers that are left have elected who
        # answers for JetStream itself: the killed one may have led that group too.
        answers = []

        def is_refused() -> bool:
            answers.append(send('nowhere.sites', timeout=SHORT))
            return not answers[-1].unreachable

        assert wait_until(is_refused, PATIENCE, interval=0.2)
        assert (answers[-1].succeeded, answers[-1].error) == (False, 'no stream takes the subject nowhere.sites')


def test_without_a_majority_of_its_servers_a_stream_is_away(cluster: Cluster, monkeypatch):
    change_settings(monkeypatch, brokers={'bus': {'driver': 'nats', 'servers': cluster.servers}})
    with sending(NatsReader(cluster.members[0])) as send:
        assert send().error == ''
        for member in cluster.members[:2]:
            member.kill()
        assert [send(timeout=SHORT).unreachable for _ in range(3)] == [True] * 3
        cluster.members[0].start()
        assert wait_until(lambda: send(timeout=SHORT).succeeded, PATIENCE, interval=0.2)
