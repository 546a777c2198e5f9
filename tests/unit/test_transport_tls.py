"""TLS: whom we trust, whom we name, and who we say we are."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from loopback import OK, Server, serving

from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

HOST = 'localhost'


@pytest.fixture(scope='module')
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope='module')
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _write(tmp_path_factory.mktemp('ca') / 'ca.pem', authority.cert_pem)


def _write(path: Path, *blobs: trustme.Blob) -> str:
    path.write_bytes(b''.join(blob.bytes() for blob in blobs))
    return str(path)


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    with serving(OK, context=server_context(authority, HOST)) as server:
        yield server


@pytest.fixture
def send() -> Iterator[object]:
    client = Client(1)

    def send(url: str, **fields: object) -> Outcome:
        return client.send(Request(method='POST', url=url, headers={}, body=b'{}', **{'timeout': 20} | fields))

    yield send
    client.close()


def test_an_authority_that_is_named_is_trusted(send, server, ca_file):
    assert send(server.url(host=HOST), verify=ca_file).succeeded
    assert server.requests[0].startswith(b'POST / HTTP/1.1')


def test_one_that_is_not_is_not(send, server):
    outcome = send(server.url(host=HOST))
    assert not outcome.succeeded
    assert 'certificate' in outcome.error
    assert not server.requests


def test_another_one_does_not_help(send, server, tmp_path):
    other = _write(tmp_path / 'other.pem', trustme.CA().cert_pem)
    assert not send(server.url(host=HOST), verify=other).succeeded
    assert not server.requests


def test_the_environment_does_not_switch_it_off(send, server, ca_file, monkeypatch):
    for name in ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'):
        monkeypatch.setenv(name, ca_file)
    assert not send(server.url(host=HOST)).succeeded


@pytest.mark.filterwarnings('ignore:Unverified HTTPS request')
def test_verification_is_off_only_where_it_is_switched_off(send, server):
    assert send(server.url(host=HOST), verify=False).succeeded


@pytest.mark.filterwarnings('ignore:Unverified HTTPS request')
def test_a_connection_that_was_not_verified_serves_no_request_that_is(send, server, ca_file):
    assert send(server.url(host=HOST), verify=False).succeeded
    assert not send(server.url(host=HOST)).succeeded
    assert len(server.requests) == 1


def test_a_certificate_for_another_name(send, authority, ca_file):
    with serving(OK, context=server_context(authority, 'other.example')) as server:
        outcome = send(server.url(host=HOST), verify=ca_file)
    assert not outcome.succeeded
    assert not server.requests


def test_an_expired_certificate(send, authority, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(context)
    with serving(OK, context=context) as server:
        assert 'expired' in send(server.url(host=HOST), verify=ca_file).error


def test_the_server_is_named(send, server, ca_file):
    """SNI: several endpoints live behind one address."""
    send(server.url(host=HOST), verify=ca_file)
    assert server.server_names == [HOST]


def test_the_connection_is_kept(send, server, ca_file):
    for _ in range(3):
        assert send(server.url(host=HOST), verify=ca_file).succeeded
    assert server.connections == 1


def test_silence_ends_at_the_deadline(send, authority, ca_file):
    with serving(None, context=server_context(authority, HOST)) as server:
        assert send(server.url(host=HOST), verify=ca_file, timeout=1).unreachable


def test_an_endpoint_that_never_shakes_hands(send, ca_file):
    """It listens, and says nothing: TLS waits for its half of the handshake."""
    with serving(None) as server:
        url = server.url(host=HOST).replace('http:', 'https:')
        assert send(url, verify=ca_file, timeout=0.5).unreachable


def test_an_endpoint_that_does_not_speak_tls(send):
    with serving(b'HTTP/1.1 400 Bad Request\r\n\r\n') as server:
        assert not send(server.url(host=HOST).replace('http:', 'https:'), timeout=2).succeeded


def test_an_endpoint_that_hangs_up_inside_the_headers(send, authority, ca_file):
    with serving(b'HTTP/1.1 200 OK\r\nX-Test: a\r\n', context=server_context(authority, HOST)) as server:
        outcome = send(server.url(host=HOST), verify=ca_file)
    assert not outcome.succeeded
    assert 'cut inside the headers' in outcome.error
    assert len(server.requests) == 1


def test_a_ca_file_that_is_gone(send, server, tmp_path):
    outcome = send(server.url(host=HOST), verify=str(tmp_path / 'gone.pem'))
    assert not outcome.succeeded
    assert 'gone.pem' in outcome.error
    assert not server.requests


class TestClientCertificate:
    @pytest.fixture
    def server(self, authority: trustme.CA) -> Iterator[Server]:
        context = server_context(authority, HOST)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        with serving(OK, context=context) as server:
            yield server

    @pytest.fixture
    def identity(self, authority: trustme.CA) -> trustme.LeafCert:
        return authority.issue_cert('netbox@example.com')

    def test_without_one(self, send, server, ca_file):
        assert not send(server.url(host=HOST), verify=ca_file).succeeded
        assert not server.requests

    def test_in_one_file_with_its_key(self, send, server, ca_file, identity, tmp_path):
        pem = _write(tmp_path / 'client.pem', identity.private_key_and_cert_chain_pem)
        assert send(server.url(host=HOST), verify=ca_file, certificate=pem).succeeded
        (shown,) = server.client_certificates
        assert ('email', 'netbox@example.com') in shown['subjectAltName']

    def test_in_two_files(self, send, server, ca_file, identity, tmp_path):
        certificate = _write(tmp_path / 'client.pem', *identity.cert_chain_pems)
        key = _write(tmp_path / 'client.key', identity.private_key_pem)
        assert send(server.url(host=HOST), verify=ca_file, certificate=(certificate, key)).succeeded

    @pytest.mark.parametrize('content', [None, b'', b'no certificate'])
    def test_a_file_that_holds_none(self, send, server, ca_file, tmp_path, content):
        path = tmp_path / 'client.pem'
        if content is not None:
            path.write_bytes(content)
        outcome = send(server.url(host=HOST), verify=ca_file, certificate=str(path))
        assert not outcome.succeeded
        assert outcome.error

    def test_a_connection_with_one_serves_no_request_with_another(self, send, server, ca_file, authority, tmp_path):
        paths = []
        for name in ('first', 'second'):
            leaf = authority.issue_cert(f'{name}@example.com')
            paths.append(_write(tmp_path / f'{name}.pem', leaf.private_key_and_cert_chain_pem))
        for path in paths:
            assert send(server.url(host=HOST), verify=ca_file, certificate=path).succeeded
        assert server.connections == 2
