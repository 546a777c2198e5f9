"""Requests are really sent, on a separate network where the receiver's 127.0.0.0/8 is blocked."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dcim.models import Site
from hypothesis import assume, given
from hypothesis import strategies as st
from support.builders import site, subscribe
from support.loopback import OK, serving
from support.settings import change_settings
from users.models import User

from devstack.receiver import Receiver
from webhooks.models import Webhook
from webhooks.services import trial
from webhooks.transport.blocked_networks import is_blocked
from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

# Attackers want these addresses.
METADATA = '169.254.169.254'
API = '/api/plugins/webhooks/webhooks/'


@pytest.fixture
def send() -> Iterator[Callable[..., Outcome]]:
    client = Client(4)

    def send(url: str, **fields: Any) -> Outcome:
        return client.send(Request(method='GET', url=url, headers={}, body=b'', timeout=5, **fields))

    yield send
    client.close()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def settings(**values: Any) -> None:
        change_settings(monkeypatch, **values)

    return settings


def _without_ipv6(known: Callable[..., list[tuple]]) -> Callable[..., list[tuple]]:
    def getaddrinfo(host: str, *args: Any) -> list[tuple]:
        if ':' in host:
            raise socket.gaierror(socket.EAI_FAMILY, 'Address family for hostname not supported')
        return known(host, *args)

    return getaddrinfo


class TestThroughAProxy:
    """It must be asked for the checked address, because it connects where we may not."""

    @pytest.mark.parametrize(
        'url',
        [
            rf'http://{METADATA}\@127.0.0.1/',
            rf'http://{METADATA}\.example/',
            f'http://{METADATA}./',
            f'http://{METADATA}../',
            'http://169%2e254%2e169%2e254/',
            'http://%31%36%39.254.169.254/',
            'http://0xA9FEA9FE/',
            'http://0xA9FEA9FE./',
            'http://2852039166/',
            'http://0251.0376.0251.0376/',
            'http://169.254.43518/',
            'http://[::ffff:169.254.169.254]/',
            'http://[64:ff9b::a9fe:a9fe]/',
            'http://[fe80::1%25eth0]/',
            'http://[fd00:ec2::23]/',
            f'http://user@{METADATA}:80/#@127.0.0.1/',
        ],
    )
    @pytest.mark.parametrize('proxy_resolves_names', [False, True])
    def test_another_spelling_of_a_blocked_address_is_not_asked_for(self, send, settings, url, proxy_resolves_names):
        settings(proxy_resolves_names=proxy_resolves_names)
        with Receiver() as proxy:
            outcome = send(url, proxies={'http': proxy.url()})
            assert not proxy.requests, proxy.requests[0].target
            assert outcome.error
            assert send('http://10.1.2.3/', proxies={'http': proxy.url()}).succeeded
            assert len(proxy.requests) == 1

    @pytest.mark.parametrize('host', ['a%2Fb', 'a%00b', 'metadata%20', 'a_b%40c', '999.1.1.1', '1.2.3.4.5', '0x'])
    def test_a_host_that_is_neither_name_nor_address_is_not_asked_for(self, send, settings, host):
        """Nobody knows how a proxy reads it."""
        settings(proxy_resolves_names=True)
        with Receiver() as proxy:
            assert send(f'http://{host}/', proxies={'http': proxy.url()}).error
            assert not proxy.requests
            assert send('http://a_b.internal.invalid/', proxies={'http': proxy.url()}).succeeded

    def test_a_name_that_only_the_proxy_knows_is_not_asked_for_unless_the_setting_says_so(self, send, settings):
        """It may lead to the metadata service."""
        with Receiver() as proxy:
            outcome = send('http://metadata.invalid/', proxies={'http': proxy.url()})
            assert 'metadata.invalid cannot be resolved' in outcome.error
            assert outcome.unreachable, 'it is tried again: a name server may be back then'
            assert not proxy.requests
            settings(proxy_resolves_names=True)
            assert send('http://metadata.invalid/', proxies={'http': proxy.url()}).succeeded

    @pytest.mark.parametrize('host', ['[fd00:ec2::254]', '[fe80::1]', '[::]'])
    def test_without_ipv6_here_a_blocked_address_is_not_asked_for(self, send, settings, monkeypatch, host):
        monkeypatch.setattr('webhooks.transport.blocked_networks.allowed_gai_family', lambda: socket.AF_INET)
        monkeypatch.setattr(socket, 'getaddrinfo', _without_ipv6(socket.getaddrinfo))
        settings(proxy_resolves_names=True)
        with Receiver() as proxy:
            assert not send(f'http://{host}/', proxies={'http': proxy.url()}).succeeded
            assert not proxy.requests
            assert send('http://[2001:db8::1]/', proxies={'http': proxy.url()}).succeeded

    def test_a_name_with_any_blocked_address_is_not_asked_for(self, send, settings, monkeypatch):
        """The proxy may take any address."""
        addresses = {'mixed.example': ['10.1.2.3', METADATA], 'both.example': ['10.1.2.3', 'fd00:ec2::254']}
        known = socket.getaddrinfo

        def getaddrinfo(host: str, port: int, family: int = 0, *args: Any) -> list[tuple]:
            found = [info for one in addresses.get(host, [host]) for info in known(one, port, 0, *args)]
            return [info for info in found if family in (socket.AF_UNSPEC, info[0])]

        monkeypatch.setattr('webhooks.transport.blocked_networks.allowed_gai_family', lambda: socket.AF_INET)
        monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
        with Receiver() as proxy:
            for host in addresses:
                assert 'which is in blocked_networks' in send(f'http://{host}/', proxies={'http': proxy.url()}).error
            assert not proxy.requests
            settings(blocked_networks=())
            assert send('http://mixed.example/', proxies={'http': proxy.url()}).succeeded

    def test_over_tls_the_proxy_is_not_asked_to_connect(self, send):
        with serving(OK) as proxy:
            outcome = send(rf'https://{METADATA}\@127.0.0.1/', proxies={'https': proxy.url()})
            assert 'blocked_networks' in outcome.error
            assert not proxy.requests
            send('https://10.1.2.3/', proxies={'https': proxy.url()})
            assert proxy.requests[0].startswith(b'CONNECT 10.1.2.3:443')


#
# Forms of an address
#


def part(value: int, width: int, base: str) -> str:
    return {'d': str(value), 'o': f'0{value:0{width}o}', 'x': f'0x{value:0{width}x}', 'X': f'0X{value:X}'}[base]


@st.composite
def written(draw: st.DrawFn, address: ipaddress.IPv4Address) -> str:
    """inet_aton(3) reads one to four parts, each decimal, octal or hexadecimal."""
    count = draw(st.integers(1, 4))
    numbers = [*address.packed[: count - 1], int.from_bytes(address.packed[count - 1 :])]
    bases = draw(st.lists(st.sampled_from('doxX'), min_size=count, max_size=count))
    text = '.'.join(part(number, draw(st.integers(1, 6)), base) for number, base in zip(numbers, bases, strict=True))
    return text + draw(st.sampled_from(['', '.']))


# Browsers replace these (UTS 46): digit 0 and letter a of each row, and dots.
DIGITS = '０𝟎𝟘𝟢𝟬𝟶₀'
LETTERS = 'ａ𝐚𝑎𝒂𝗮𝚊'
DOTS = '。．｡'


def _as_unicode(draw: st.DrawFn, character: str) -> str:
    if character.isdigit():
        return chr(ord(draw(st.sampled_from(DIGITS))) + int(character))
    if character == '.':
        return draw(st.sampled_from(DOTS))
    return chr(ord(draw(st.sampled_from(LETTERS))) + ord(character.lower()) - ord('a'))


def _as_escape(_draw: st.DrawFn, character: str) -> str:
    return f'%{ord(character):02x}'


@st.composite
def disguised(draw: st.DrawFn, text: str, hide: Callable[[st.DrawFn, str], str]) -> str:
    hidden = draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    return ''.join(hide(draw, one) if is_hidden else one for one, is_hidden in zip(text, hidden, strict=True))


def _inside(prefix: str, number: int, shift: int = 0) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + (number << shift))


def _dotted(address: ipaddress.IPv6Address) -> str:
    return f'{address.exploded[:30]}{ipaddress.IPv4Address(address.packed[12:])}'


SPELLINGS: list[Callable[[ipaddress.IPv6Address], str]] = [
    str,
    lambda address: address.exploded,
    lambda address: address.exploded.upper(),
    _dotted,
]
FORMS: list[Callable[[int], ipaddress.IPv6Address]] = [
    lambda number: _inside('::', number),  # compatible
    lambda number: _inside('::ffff:0:0', number),  # mapped
    lambda number: _inside('::ffff:0:0:0', number),  # SIIT
    lambda number: _inside('64:ff9b::', number),  # NAT64
    lambda number: _inside('64:ff9b:1::', number),  # NAT64 of a local network
    lambda number: _inside('2002::1', number, 80),  # 6to4
    lambda number: _inside('2001:0:4136:e378:8000:63bf:0:0', number ^ 0xFFFFFFFF),  # Teredo
    lambda number: _inside('2001:db8::5efe:0:0', number),  # ISATAP
    lambda number: _inside('2001:db8::200:5efe:0:0', number),
]
AUTHORITIES = ['{}', 'user@{}', 'user:pass%40word@{}', '127.0.0.1@{}', '{}:80', 'a@{}:8080']
# Half are at the edges of blocked networks.
EDGES = ['0.0.0.0', '0.255.255.255', '169.254.0.0', METADATA, '224.0.0.0', '255.255.255.255', '100.100.100.200']
ADDRESSES = st.one_of(
    st.ip_addresses(v=4),
    st.builds(
        lambda edge, step: ipaddress.IPv4Address((int(ipaddress.IPv4Address(edge)) + step) % 2**32),
        st.sampled_from(EDGES),
        st.integers(-2, 2),
    ),
)


class Reached(Exception):
    """The address was not blocked."""


def is_refused(url: str, **fields: Any) -> bool:
    """Nothing is connected to."""
    error = error_of(url, **fields)
    assert 'blocked_networks' in error or 'Reached' in error, f'{url}: {error}'
    return 'blocked_networks' in error


def error_of(url: str, **fields: Any) -> str:
    """Instead of connecting, it raises Reached."""
    client, known = Client(1), socket.socket

    def connect(*_args: object) -> socket.socket:
        raise Reached

    socket.socket = connect
    try:
        return client.send(Request(method='GET', url=url, headers={}, body=b'', timeout=5, **fields)).error
    finally:
        socket.socket = known
        client.close()


class TestForms:
    @given(st.data(), ADDRESSES, st.sampled_from(AUTHORITIES))
    def test_however_an_address_is_written_it_is_blocked_if_and_only_if_its_plain_form_is(self, data, address, around):
        text = data.draw(written(address))
        assert is_refused(f'http://{around.format(text)}/') is is_blocked(str(address))

    @given(st.data(), ADDRESSES, st.sampled_from(AUTHORITIES))
    def test_percent_encoded_it_is_blocked_if_and_only_if_its_plain_form_is(self, data, address, around):
        text = data.draw(disguised(data.draw(written(address)), _as_escape))
        assert is_refused(f'http://{around.format(text)}/') is is_blocked(str(address))

    @given(st.data(), ADDRESSES)
    def test_in_digits_and_dots_of_other_scripts_it_is_the_host_of_no_url(self, data, address):
        """Browsers accept such a host."""
        text = data.draw(disguised(data.draw(written(address)), _as_unicode))
        assume(not text.isascii())
        assert 'not allowed' in error_of(f'http://{text}/')

    @given(ADDRESSES, st.sampled_from(FORMS), st.sampled_from(SPELLINGS), st.sampled_from(AUTHORITIES))
    def test_inside_another_address_it_is_blocked_if_and_only_if_its_plain_form_is(
        self, address, form, spelled, around
    ):
        outer = form(int(address))
        assume(not outer.is_loopback)  # ::1, which is 0.0.0.1 to nobody
        assert is_refused(f'http://{around.format(f"[{spelled(outer)}]")}/') is is_blocked(str(address))

    @given(st.data(), ADDRESSES)
    def test_a_proxy_is_asked_for_no_disguise_of_a_blocked_address(self, data, address):
        form, spelled = data.draw(st.sampled_from(FORMS)), data.draw(st.sampled_from(SPELLINGS))
        outer = form(int(address))
        assume(not outer.is_loopback)
        shown = written(address).flatmap(lambda text: disguised(text, _as_escape))
        text = data.draw(st.one_of(shown, st.just(f'[{spelled(outer)}]')))
        refused = is_refused(f'http://{text}/', proxies={'http': 'http://127.0.0.1:9'})
        assert refused is is_blocked(str(address))

    @given(ADDRESSES, st.sampled_from([48, 56, 64]), st.integers(0, 2**8 - 1))
    def test_behind_a_local_nat64_of_any_length_it_is_blocked_if_its_plain_form_is(self, address, length, rest):
        """Nobody outside knows where it holds the address (RFC 6052, 2.2)."""
        packed = bytearray(ipaddress.IPv6Address('64:ff9b:1::').packed)
        places = [place for place in range(length // 8, 16) if place != 8][:4]
        for place, byte in zip(places, address.packed, strict=True):
            packed[place] = byte
        packed[15] = rest
        if is_blocked(str(address)) and address not in ipaddress.IPv4Network('0.0.0.0/8'):
            assert is_blocked(str(ipaddress.IPv6Address(bytes(packed))))

    @pytest.mark.parametrize(
        'address',
        [
            'fd00:ec2::23',
            'fd00:42::42',
            'fd00:a9fe:a9fe::1',
            '2001:0:4136:e378:8000:63bf:5601:5601',
            '2001:0:a9fe:a9fe:8000:63bf:f5ff:fffe',
            '2001:db8::5efe:169.254.169.254',
            '64:ff9b:1:a9fe:a9:fe00::',
        ],
    )
    def test_a_metadata_service_is_blocked_wherever_it_is_and_whatever_is_around_it(self, address):
        assert is_refused(f'http://[{address}]/')
        assert not is_refused('http://[2001:db8::1]/')


#
# NetBox's own port
#


@pytest.fixture
def trusting(committed: None, make_netbox: Callable[..., Any], netbox_user: User) -> Iterator[str]:
    """With REMOTE_AUTH_ENABLED, it believes a proxy's header about the user."""
    server = make_netbox('REMOTE_AUTH_ENABLED = True\n').start_server()
    server.wait_until_ready()
    yield server.url
    server.stop()


def test_nobody_acts_as_another_user_by_a_request_to_netboxs_own_port(trusting, netbox_user, api_client):
    """URLs stored before the check get nothing either."""
    site()
    webhook = subscribe(f'{trusting}api/users/users/', Site, http_method='GET')
    line = f'Remote-User: {netbox_user.username}'
    answer = api_client.patch(f'{API}{webhook.pk}/', {'additional_headers': line}, format='json')
    Webhook.objects.update(additional_headers=line)
    attempt = trial.send_test(Webhook.objects.get(), netbox_user).attempts.get()
    assert f'"{netbox_user.username}"' not in attempt.response_body
    assert attempt.error.startswith('not sent: additional_headers')
    assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
    Webhook.objects.update(additional_headers='X-Other: x')
    attempt = trial.send_test(Webhook.objects.get(), netbox_user).attempts.get()
    assert attempt.response_status == 403, 'without the header it is nobody'


def test_no_webhook_says_for_whom_it_asks(db, api_client, settings_of_netbox):
    settings_of_netbox(REMOTE_AUTH_USER_EMAIL='HTTP_REMOTE_USER_EMAIL')
    webhook = subscribe('http://127.0.0.1:9/', Site)
    names = (
        'Forwarded',
        'X-Forwarded-For',
        'x-forwarded-host',
        'X_Forwarded_Proto',
        'X-Forwarded-Anything',
        'X-Real-IP',
        'Remote_User_Group',
        'Remote-User-Group',
        'Remote-User-Email',
        'Remote-User-First-Name',
        'Webhook_Signature',
        'X-Sso-User',
        'Cf-Connecting-Ip',
    )
    for sent, status in (*((f'{name}: x', 400) for name in names), ('\n'.join(f'A-{name}: x' for name in names), 200)):
        answer = api_client.patch(f'{API}{webhook.pk}/', {'additional_headers': sent}, format='json')
        assert answer.status_code == status, (sent, answer.data)


@pytest.fixture
def settings_of_netbox(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    from django.conf import settings

    def change(**values: Any) -> None:
        others = {'REMOTE_AUTH_HEADER': 'HTTP_X_SSO_USER', 'HTTP_CLIENT_IP_HEADERS': ('HTTP_CF_CONNECTING_IP',)}
        for name, value in (others | values).items():
            monkeypatch.setattr(settings, name, value)

    return change


def test_a_webhook_with_such_a_header_from_before_shows_which_it_is(db, api_client):
    webhook = subscribe('http://127.0.0.1:9/', Site)
    Webhook.objects.update(additional_headers='X-Forwarded-For: 10.0.0.1\nX-Other: x')
    answer = api_client.get(f'{API}{webhook.pk}/').json()
    assert answer['additional_headers'] == 'X-Forwarded-For: ********\nX-Other: ********'
