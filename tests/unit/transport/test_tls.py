import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import trustme
from support.loopback import OK, RESET, Server, serving

from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

HOST = 'localhost'
UNTRUSTED = 'certificate verify failed: unable to get local issuer certificate'


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


def test_an_authority_that_is_not_named_is_not_trusted(send, server, ca_file):
    assert UNTRUSTED in send(server.url(host=HOST)).error
    assert not server.requests
    assert send(server.url(host=HOST), verify=ca_file).succeeded


def test_naming_another_authority_does_not_help(send, server, ca_file, tmp_path):
    other = _write(tmp_path / 'other.pem', trustme.CA().cert_pem)
    assert UNTRUSTED in send(server.url(host=HOST), verify=other).error
    assert not server.requests
    assert send(server.url(host=HOST), verify=ca_file).succeeded


def test_the_environment_names_no_authority(send, server, ca_file, monkeypatch):
    for name in ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'):
        monkeypatch.setenv(name, ca_file)
    assert UNTRUSTED in send(server.url(host=HOST)).error
    assert requests.post(server.url(host=HOST), timeout=20).ok, 'requests itself uses what is set'


@pytest.mark.filterwarnings('ignore:Unverified HTTPS request')
def test_verification_can_be_switched_off_for_a_request(send, server):
    assert send(server.url(host=HOST), verify=False).succeeded


@pytest.mark.filterwarnings('ignore:Unverified HTTPS request')
def test_a_connection_that_was_not_verified_serves_no_request_that_is(send, server, ca_file):
    assert send(server.url(host=HOST), verify=False).succeeded
    assert UNTRUSTED in send(server.url(host=HOST)).error
    assert len(server.requests) == 1
    assert send(server.url(host=HOST), verify=ca_file).succeeded


def test_a_certificate_for_another_name_is_refused(send, authority, ca_file):
    with serving(OK, context=server_context(authority, 'other.example')) as server:
        outcome = send(server.url(host=HOST), verify=ca_file)
    assert "certificate is not valid for 'localhost'" in outcome.error
    assert not server.requests
    with serving(OK, context=server_context(authority, 'other.example', HOST)) as server:
        assert send(server.url(host=HOST), verify=ca_file).succeeded


def test_an_expired_certificate_is_refused(send, authority, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(context)
    with serving(OK, context=context) as server:
        assert 'expired' in send(server.url(host=HOST), verify=ca_file).error


def test_the_server_is_named(send, server, ca_file):
    """SNI: several endpoints share an address."""
    send(server.url(host=HOST), verify=ca_file)
    assert server.server_names == [HOST]


def test_a_verified_connection_is_kept(send, server, ca_file):
    for _ in range(3):
        assert send(server.url(host=HOST), verify=ca_file).succeeded
    assert server.connections == 1


def test_silence_ends_at_the_deadline(send, authority, ca_file):
    with serving(None, context=server_context(authority, HOST)) as server:
        assert send(server.url(host=HOST), verify=ca_file, timeout=1).error == 'no answer within 1 seconds'


def test_an_endpoint_that_never_shakes_hands_is_given_up(send, ca_file):
    """TLS waits for the silent endpoint's half of the handshake."""
    with serving(None) as server:
        url = server.url(host=HOST).replace('http:', 'https:')
        assert send(url, verify=ca_file, timeout=0.5).error == 'no answer within 0.5 seconds'


def test_an_endpoint_that_does_not_speak_tls_is_refused(send):
    def answer() -> None:
        connection, _address = listener.accept()
        with connection:
            connection.recv(5)
            connection.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        outcome = send(f'https://127.0.0.1:{listener.getsockname()[1]}/')
        thread.join()
    assert 'WRONG_VERSION_NUMBER' in outcome.error


def test_headers_that_are_cut_are_a_failure(send, authority, ca_file):
    with serving(b'HTTP/1.1 200 OK\r\nX-Test: a\r\n', context=server_context(authority, HOST)) as server:
        outcome = send(server.url(host=HOST), verify=ca_file)
    assert 'cut inside the headers' in outcome.error
    assert len(server.requests) == 1


def test_without_its_ca_file_nothing_is_sent(send, server, authority, tmp_path):
    path = str(tmp_path / 'gone.pem')
    assert path in send(server.url(host=HOST), verify=path).error
    assert not server.requests
    _write(tmp_path / 'gone.pem', authority.cert_pem)
    assert send(server.url(host=HOST), verify=path).succeeded


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

    def test_without_a_certificate_the_endpoint_refuses(self, send, server, ca_file, identity, tmp_path):
        assert 'certificate required' in send(server.url(host=HOST), verify=ca_file).error
        assert not server.requests
        pem = _write(tmp_path / 'client.pem', identity.private_key_and_cert_chain_pem)
        assert send(server.url(host=HOST), verify=ca_file, certificate=(pem, pem)).succeeded

    def test_a_certificate_in_one_file_with_its_key_is_shown(self, send, server, ca_file, identity, tmp_path):
        pem = _write(tmp_path / 'client.pem', identity.private_key_and_cert_chain_pem)
        assert send(server.url(host=HOST), verify=ca_file, certificate=(pem, pem)).succeeded
        (shown,) = server.client_certificates
        assert ('email', 'netbox@example.com') in shown['subjectAltName']

    def test_a_certificate_and_its_key_in_two_files_are_shown(self, send, server, ca_file, identity, tmp_path):
        certificate = _write(tmp_path / 'client.pem', *identity.cert_chain_pems)
        key = _write(tmp_path / 'client.key', identity.private_key_pem)
        assert send(server.url(host=HOST), verify=ca_file, certificate=(certificate, key)).succeeded

    @pytest.mark.parametrize(
        ('content', 'reason'), [(None, 'invalid path'), (b'', 'PEM'), (b'no certificate', 'PEM')], ids=repr
    )
    def test_a_file_without_a_certificate_is_an_error(self, send, server, ca_file, tmp_path, content, reason):
        path = tmp_path / 'client.pem'
        if content is not None:
            path.write_bytes(content)
        assert reason in send(server.url(host=HOST), verify=ca_file, certificate=(str(path),) * 2).error

    def test_a_connection_with_one_serves_no_request_with_another(self, send, server, ca_file, authority, tmp_path):
        paths = []
        for name in ('first', 'second'):
            leaf = authority.issue_cert(f'{name}@example.com')
            paths.append(_write(tmp_path / f'{name}.pem', leaf.private_key_and_cert_chain_pem))
        for path in paths:
            assert send(server.url(host=HOST), verify=ca_file, certificate=(path, path)).succeeded
        assert server.connections == 2


def test_a_request_that_a_kept_tls_connection_did_not_answer_is_repeated_on_a_new_one(send, authority, ca_file):
    context = server_context(authority, HOST)
    with serving(OK, RESET, OK, context=context) as server:
        assert [send(server.url(host=HOST), verify=ca_file).error for _ in range(2)] == ['', '']
        assert (len(server.requests), server.connections) == (3, 2)
