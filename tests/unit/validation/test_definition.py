"""Templates are tested with the model, as NetBox provides their filters."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from support.settings import change_settings

from webhooks import conf, validation
from webhooks.constants import RESERVED_HEADERS
from webhooks.exceptions import DecryptionError, DefinitionError
from webhooks.security.masking import MASK, mask_template
from webhooks.validation.headers import mask_headers, merge_headers, parse_headers
from webhooks.validation.moved import leads_elsewhere
from webhooks.validation.url import merge_url


@dataclass
class Sealed:
    """None cannot be decrypted."""

    text: str | None = ''

    def reveal(self) -> str:
        if self.text is None:
            raise DecryptionError('no key fits')
        return self.text


@dataclass
class Sound:
    payload_url: str = 'https://example.com/hook'
    http_method: str = 'POST'
    http_content_type: str = 'application/json'
    payload_format: str = 'default'
    additional_headers: Sealed = dataclasses.field(default_factory=Sealed)
    body_template: str = ''
    conditions: Any = None
    success_conditions: Any = None
    credential: Any = None
    expand: list[str] = dataclasses.field(default_factory=list)
    fields: Any = None
    filters: dict[str, str] = dataclasses.field(default_factory=dict)
    ordered: bool = True
    omit: Any = None
    include_snapshots: bool = False
    include_components: bool = False
    include_config_contexts: bool = False
    only_if_changed: list[str] = dataclasses.field(default_factory=list)
    change_set: bool = False
    latest_only: bool = False
    quiet: int | None = None
    quiet_max: int | None = None
    secret: Sealed = dataclasses.field(default_factory=Sealed)
    ssl_verification: bool = True
    ca_file_path: str = ''
    client_cert_path: str = ''
    client_key_path: str = ''
    timeout: int | None = None
    kinds: list[str] = dataclasses.field(default_factory=lambda: ['created'])
    has_new_secret: bool = True


PARTS_OF_URLS = (
    *'@:/?#\\%[].-_~!$&+,;=|^`<>"éß。／＠℀', 'a', '80', '0', '127.0.0.1', '[::1]', 'trusted.example.com', '%31', '%40',
    '%2f', '%5c', '%25eth0', '１２７', 'xn--',
)  # fmt: skip


def wrong(**fields: Any) -> set[str]:
    return set(validation.errors(Sound(**fields)))


def test_a_sound_one_has_no_errors():
    assert validation.errors(Sound()) == {}


@pytest.mark.parametrize('keys', [['a'] * 21, ['a.b.c.d'], ['a', '...']])
def test_too_many_keys_or_levels_are_refused(keys: list[str]):
    assert wrong(expand=keys) == {'expand'}
    assert wrong(expand=['a.b.c'] * 20) == set()


def test_changes_of_components_need_updates():
    assert wrong(include_components=True) == {'include_components'}
    assert wrong(include_components=True, kinds=['updated']) == set()


def test_config_contexts_need_updates_and_exclude_only_if_changed():
    assert wrong(include_config_contexts=True) == {'include_config_contexts'}
    updates = {'include_config_contexts': True, 'kinds': ['updated']}
    assert wrong(**updates) == set()
    assert wrong(**updates, only_if_changed=['status']) == {'only_if_changed'}


def test_keys_that_must_change_are_bounded_and_exclude_components():
    assert wrong(only_if_changed=['status'] * 50) == set()
    assert wrong(only_if_changed=['status'] * 51) == {'only_if_changed'}
    assert wrong(only_if_changed=['status'], include_components=True, kinds=['updated']) == {'only_if_changed'}


def test_all_errors_are_found_at_once():
    assert wrong(payload_url='ftp://example.com', kinds=[], http_content_type='json', timeout=300) == {
        'payload_url', 'type_create', 'http_content_type', 'timeout',
    }  # fmt: skip


class TestUrl:
    @pytest.mark.parametrize(
        'url',
        [
            'http://example.com',
            'https://example.com:8443/path?a=b#c',
            'HTTPS://EXAMPLE.COM/',
            'http://user:password@example.com/',
            'http://[2001:db8::1]:80/',
            'http://10.0.0.1/',
            'http://localhost:8000/',
            'http://müller.example/',
            'http://a_b-c.example.:80/',
            'http://[fe80::1%25eth0]/',
            'http://user:p%40ss|word@example.com/a\\b',
            'http://example.com/a\\@b{{ data.name }}',
        ],
    )
    def test_a_url_that_can_be_called_is_valid(self, url: str):
        assert wrong(payload_url=url) == set()

    @pytest.mark.parametrize(
        'url',
        [
            'example.com',
            '//example.com/',
            'ftp://example.com/',
            'file:///etc/passwd',
            'javascript:alert(1)',
            'http://',
            'http:///path',
            'http://user@/',
            'http://:80/',
            'http:example.com',
            'http://example.com:0/',
            'http://example.com:65536/',
            'http://example.com:port/',
            'http://[::1',
            'http://[not an address]/',
            'http://exam ple.com/',
            'http://example.com/a b',
            'http://example.com/\r\nHost: other',
            'http://example.com/\x00',
            'http://example.com/\t',
            ' http://example.com/',
            'http://example.com/\ud800',
            # requests calls another host than urlsplit() reads.
            'http://127.0.0.1:8425\\@trusted.example.com/hook',
            'http://127.0.0.1\\.trusted.example.com/',
            'http://user:p\\w@example.com/',
            'http://%31%32%37.0.0.1/',
            'http://a\u3002example/',
            'http://exam\u00adple.com/',
            'http://a|b.example/',
            # So it is with what stands before a template.
            'http://127.0.0.1:8425\\@trusted.example.com/{{ data.name }}',
            'http://%31%32%37.0.0.1/{{ data.name }}',
            'http://example.com:port/{{ data.name }}',
            f'http://example.com/{"x" * 8192}',
        ],
    )
    def test_a_url_that_cannot_be_called_is_refused(self, url: str):
        assert wrong(payload_url=url) == {'payload_url'}

    @settings(max_examples=500, deadline=None)
    @given(st.lists(st.sampled_from([*PARTS_OF_URLS]), min_size=1, max_size=8).map(''.join))
    def test_an_accepted_url_calls_the_host_that_its_masked_form_shows(self, rest: str):
        url = f'http://{rest}'
        shown = urlsplit(mask_template(url, hides_path=True))
        if wrong(payload_url=url):
            return
        called, alone = requests.PreparedRequest(), requests.PreparedRequest()
        try:
            called.prepare_url(url, None)
        except requests.RequestException:
            return  # nothing is called
        alone.prepare_url(f'http://{shown.netloc.rpartition("@")[2]}', None)
        assert (urlsplit(called.url).hostname, urlsplit(called.url).port) == (
            urlsplit(alone.url).hostname,
            urlsplit(alone.url).port,
        )

    def test_without_one_it_is_a_feed_which_has_no_change_sets(self):
        assert wrong(payload_url='') == set()
        assert wrong(payload_url='', change_set=True) == {'change_set'}

    def test_an_error_about_a_url_does_not_repeat_its_password(self):
        for url in ('http://user:sesame\u2100@example.com/', 'http://user:sesame@example.com:port/'):
            assert 'sesame' not in validation.errors(Sound(payload_url=url))['payload_url']

    def test_a_url_with_a_mask_in_it_is_refused(self):
        assert wrong(payload_url=f'https://example.com/?key={MASK}') == {'payload_url'}


class TestElsewhere:
    """Stored headers stay behind, even with a broken URL: the next check may pass."""

    @pytest.mark.parametrize(
        'url', ['https://b.example/{{ broken', 'https://b.example:port/', f'https://b.example/{MASK}']
    )
    def test_a_url_that_is_refused_leads_elsewhere(self, url: str):
        assert leads_elsewhere('https://a.example/', url)
        assert not leads_elsewhere('https://a.example/', url.replace('b.example:port', 'a.example').replace('b.', 'a.'))


class TestMaskedUrl:
    def test_sent_back_unchanged_keeps_what_is_stored(self):
        stored = 'https://user:password@example.com/?key=secret'
        assert merge_url(mask_template(stored), stored) == stored

    @pytest.mark.parametrize('sent', ['https://example.org/', f'https://{MASK}@example.org/?key={MASK}'])
    def test_sent_back_changed_does_not(self, sent: str):
        """Another host must not get the stored user and query."""
        assert merge_url(sent, 'https://user:password@example.com/?key=secret') == sent


class TestHeaders:
    @pytest.mark.parametrize(
        ('text', 'headers'),
        [
            ('', []),
            ('\n \r\n', []),
            ('X-One: 1', [('X-One', '1')]),
            ('X-One: 1\r\nX-Two:2\n', [('X-One', '1'), ('X-Two', '2')]),
            ('Authorization: Basic a:b=', [('Authorization', 'Basic a:b=')]),
            ('X-Empty:', [('X-Empty', '')]),
            ('X-One: 1\nX-One: 2', [('X-One', '1'), ('X-One', '2')]),
        ],
    )
    def test_headers_in_lines_are_valid(self, text: str, headers: list[tuple[str, str]]):
        assert list(parse_headers(text)) == headers

    @pytest.mark.parametrize(
        'text',
        ['no colon', ': value', 'X One: 1', 'X-Ö: 1', 'X(): 1', 'X: a\rb', 'X: a\x00b', 'X: a\x0bb', 'X: 1\n folded'],
    )
    def test_headers_that_are_no_lines_are_refused(self, text: str):
        with pytest.raises(DefinitionError) as error:
            list(parse_headers(text))
        assert error.value.field == 'additional_headers'

    @pytest.mark.parametrize('name', ['Host', 'content-length', 'Transfer-Encoding', 'webhook-id', 'X-HOOK-SIGNATURE'])
    def test_headers_that_the_sender_sets_are_refused(self, name: str):
        assert name.lower() in RESERVED_HEADERS
        with pytest.raises(DefinitionError):
            list(parse_headers(f'{name}: x'))

    def test_a_header_that_a_preset_leaves_to_be_entered_is_refused(self):
        assert wrong(additional_headers=Sealed('Authorization: Bearer <token>')) == {'additional_headers'}
        assert wrong(additional_headers=Sealed('Authorization: Bearer token')) == set()

    def test_a_sealed_value_that_cannot_be_decrypted_is_an_error_of_its_field(self):
        assert wrong(additional_headers=Sealed(None), secret=Sealed(None)) == {'additional_headers', 'secret'}


class TestMaskedHeaders:
    STORED = Sealed('Authorization: Bearer secret\nX-Two: 2')

    def test_masked_headers_show_names_only(self):
        assert mask_headers(self.STORED) == f'Authorization: {MASK}\nX-Two: {MASK}'

    @pytest.mark.parametrize('stored', [Sealed(None), Sealed('no colon')])
    def test_show_nothing_of_what_cannot_be_read(self, stored: Sealed):
        assert mask_headers(stored) == MASK

    def test_sent_back_unchanged_keep_what_is_stored(self):
        assert merge_headers(mask_headers(self.STORED), self.STORED) is self.STORED

    def test_sent_back_in_part(self):
        sent = f'X-New: 3\nauthorization: {MASK}'
        assert merge_headers(sent, self.STORED) == 'X-New: 3\nauthorization: Bearer secret'

    def test_without_a_mask_nothing_has_to_be_decrypted(self):
        assert merge_headers('X-New: 3', Sealed(None)) == 'X-New: 3'

    def test_a_mask_without_a_value_is_an_error(self):
        with pytest.raises(DefinitionError, match='X-Other'):
            merge_headers(f'X-Other: {MASK}', self.STORED)

    def test_a_value_that_only_contains_the_mask_is_a_value(self):
        assert merge_headers(f'X-New: a{MASK}', self.STORED) == f'X-New: a{MASK}'


class TestContentType:
    @pytest.mark.parametrize(
        'value', ['application/json', 'text/plain; charset=utf-8', 'application/vnd.x+json', 'a/b;c="d e"']
    )
    def test_a_content_type_is_valid(self, value: str):
        assert wrong(http_content_type=value) == set()

    @pytest.mark.parametrize('value', ['', 'json', 'a/b/c', 'a/b\r\nX: 1', 'a/b;', 'a /b', 'a/b; c', 'ä/b', 'a/b\n'])
    def test_a_text_that_is_no_content_type_is_refused(self, value: str):
        assert wrong(http_content_type=value) == {'http_content_type'}


class TestConditions:
    @pytest.mark.parametrize(
        'conditions',
        [
            None,
            {},
            {'and': [{'attr': 'status.value', 'value': 'active'}]},
            {'or': [{'attr': 'vid', 'op': 'gt', 'value': 5, 'negate': True}, {'and': []}]},
            {'attr': 'name', 'op': 'regex', 'value': '^a'},
            {'attr': 'status', 'op': 'changed'},
            {'attr': 'tags', 'op': 'contains', 'value': 'x'},
        ],
    )
    def test_that_can_be_met(self, conditions: Any):
        assert wrong(conditions=conditions) == set()

    @pytest.mark.parametrize(
        'conditions',
        [
            [],
            ['x'],
            'text',
            0,
            True,
            {'xor': []},
            {'and': {'attr': 'name'}},
            {'and': ['x']},
            {'and': [{'attr': 'name'}]},
            {'and': [{'value': 'x'}]},
            {'and': None},
            {'and': [{'attr': 'name', 'op': 'is', 'value': 'x'}]},
            {'and': [{'attr': 'name', 'op': 'gt', 'value': 'x'}]},
            {'and': [{'attr': 'name', 'op': 'regex', 'value': '('}]},
            {'and': [{'attr': 5, 'value': 'x'}]},
            {'and': [{'attr': ['a'], 'value': 'x'}]},
            {'and': [{'attr': 'name', 'value': 'x', 'other': 1}]},
            {'and': [{'attr': 'name', 'value': 'a\x00b'}]},
            {'and': [{'attr': 'name', 'value': '\ud800'}]},
            {'and': [{'attr': 'vid', 'op': 'gt', 'value': math.nan}]},
            {'and': [{'attr': 'vid', 'op': 'gt', 'value': math.inf}]},
            {'and': [{'attr': 'x', 'op': 'in', 'value': 'text'}]},
        ],
    )
    def test_conditions_that_cannot_be_evaluated_are_refused(self, conditions: Any):
        assert wrong(conditions=conditions) == {'conditions'}


class TestSecret:
    @pytest.mark.parametrize('secret', ['', 'any words', 'ä', 'whsec_' + 'YWFh' * 8])
    def test_any_text_or_key_may_sign(self, secret: str):
        assert wrong(secret=Sealed(secret)) == set()

    def test_a_new_one_is_no_mask_and_not_too_long(self):
        for secret in (MASK, 'x' * 1001):
            assert wrong(secret=Sealed(secret)) == {'secret'}
            assert wrong(secret=Sealed(secret), has_new_secret=False) == set()
        assert wrong(secret=Sealed('x' * 1000)) == set()

    @pytest.mark.parametrize('secret', ['whsec_', 'whsec_YWFh', 'whsec_no base64', 'whsec_ä', 'whsec_' + 'YWFh' * 22])
    def test_a_secret_that_cannot_sign_is_refused(self, secret: str):
        assert wrong(secret=Sealed(secret)) == {'secret'}

    def test_it_is_not_said(self):
        assert 'c2VjcmV0' not in validation.errors(Sound(secret=Sealed('whsec_c2VjcmV0')))['secret']


class TestTimeout:
    @pytest.mark.parametrize('timeout', [None, 1, 299])
    def test_a_timeout_below_that_of_jobs_is_accepted(self, timeout: int | None):
        assert wrong(timeout=timeout) == set()

    @pytest.mark.parametrize('timeout', [300, 3600])
    def test_a_timeout_of_that_of_jobs_or_more_is_refused(self, timeout: int):
        assert wrong(timeout=timeout) == {'timeout'}


class TestFormat:
    def test_cloudevents_are_json(self):
        form = 'application/x-www-form-urlencoded; charset=utf-8'
        assert wrong(payload_format='cloudevents', http_content_type=form) == {'http_content_type'}
        assert wrong(payload_format='default', http_content_type=form) == set()


class TestChangeSet:
    def test_it_leaves_out_no_change(self):
        assert wrong(change_set=True) == set()
        assert wrong(change_set=True, latest_only=True) == {'change_set'}


class TestFiles:
    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = (tmp_path / 'certificates').resolve()
        root.mkdir()
        change_settings(monkeypatch, certificate_root=root)
        return root

    FIELDS = pytest.mark.parametrize('field', ['ca_file_path', 'client_cert_path'])

    @FIELDS
    def test_a_file_below_the_folder_is_accepted(self, root: Path, field: str):
        (root / 'ca.pem').touch()
        assert wrong(**{field: str(root / 'ca.pem')}) == set()

    @FIELDS
    def test_a_file_elsewhere_is_refused(self, root: Path, tmp_path: Path, field: str):
        (tmp_path / 'other.pem').touch()
        (root / 'link.pem').symlink_to(tmp_path / 'other.pem')
        for path in (
            '/etc/passwd',
            str(tmp_path / 'other.pem'),
            f'{root}/../other.pem',
            str(root / 'link.pem'),
            str(root),
        ):
            assert wrong(**{field: path}) == {field}

    def test_an_error_about_a_file_does_not_tell_whether_it_exists(self, root: Path, tmp_path: Path):
        (tmp_path / 'there').touch()
        said = {
            validation.errors(Sound(ca_file_path=str(tmp_path / name)))['ca_file_path'] for name in ('there', 'not')
        }
        assert len(said) == 1

    @FIELDS
    def test_a_file_that_is_absent_is_refused(self, root: Path, field: str):
        assert wrong(**{field: str(root / 'absent.pem')}) == {field}

    @FIELDS
    def test_a_name_that_no_file_can_have(self, root: Path, field: str):
        assert wrong(**{field: str(root / ('x' * 300))}) == {field}

    @FIELDS
    def test_where_no_folder_is_set(self, field: str):
        assert conf.get().certificate_root is None
        assert wrong(**{field: '/etc/ssl/certs/ca-certificates.crt'}) == {field}

    def test_a_ca_file_without_verification(self, root: Path):
        (root / 'ca.pem').touch()
        assert wrong(ca_file_path=str(root / 'ca.pem'), ssl_verification=False) == {'ca_file_path'}

    def test_a_key_without_a_certificate(self, root: Path):
        (root / 'key.pem').touch()
        assert wrong(client_key_path=str(root / 'key.pem')) == {'client_key_path'}

    def test_a_path_with_a_null_character(self, root: Path):
        assert wrong(ca_file_path=f'{root}/a\x00b') == {'ca_file_path'}


class TestSuccessConditions:
    @pytest.mark.parametrize(
        'conditions',
        [
            None,
            {},
            {'attr': 'status', 'value': 201},
            {'and': [{'attr': 'body.result.response', 'value': 'success'}, {'attr': 'headers.x-ok', 'value': '1'}]},
            {'attr': 'text', 'op': 'contains', 'value': 'error', 'negate': True},
            {'attr': 'body', 'value': None},
        ],
    )
    def test_that_can_be_met(self, conditions: Any):
        assert wrong(success_conditions=conditions) == set()

    @pytest.mark.parametrize(
        'conditions',
        [
            'ok',
            {'attr': 'name', 'value': 'x'},
            {'attr': 'headers.X-Ok', 'value': '1'},
            {'attr': 'headers', 'value': '1'},
            {'attr': 'snapshots.prechange.name', 'value': '1'},
            {'attr': 'text', 'op': 'regex', 'value': '(a+)+$'},
            {'attr': 'status', 'op': 'changed'},
            {'or': [{'attr': 'status', 'value': 200}] * 101},
        ],
    )
    def test_conditions_on_answers_that_cannot_be_evaluated_are_refused(self, conditions: Any):
        assert wrong(success_conditions=conditions) == {'success_conditions'}


class TestQuiet:
    @pytest.mark.parametrize('times', [{}, {'quiet': 5}, {'quiet': 5, 'quiet_max': 5}, {'quiet': 3600}])
    def test_quiet_times_that_fit_are_valid(self, times: dict[str, int]):
        assert wrong(**times) == set()

    @pytest.mark.parametrize('times', [{'quiet_max': 5}, {'quiet': 5, 'quiet_max': 4}])
    def test_a_longest_time_without_a_quiet_time_or_below_it(self, times: dict[str, int]):
        assert wrong(**times) == {'quiet_max'}

    def test_change_sets_and_quiet_time_exclude_each_other(self):
        assert wrong(quiet=5, change_set=True) == {'quiet'}

    @pytest.mark.parametrize('times', [{'quiet': 360}, {'quiet': 5, 'quiet_max': 3600}])
    def test_deliveries_would_expire_before_they_are_due(self, monkeypatch, times: dict[str, int]):
        change_settings(monkeypatch, expire_after=3600)
        (reason,) = validation.errors(Sound(**times)).values()
        assert reason == 'It is 3600 seconds now, but deliveries expire after 3600 (expire_after). Enter less.'
        assert wrong(quiet=359) == set()
