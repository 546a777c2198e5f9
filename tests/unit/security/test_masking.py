import pytest

from webhooks.constants import MAX_URL_CHARS
from webhooks.security.masking import MASK, mask_template, mask_url


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        ('https://example.com/hook', 'https://example.com/hook'),
        ('https://user:password@example.com/hook', f'https://{MASK}@example.com/hook'),
        ('https://token@example.com:8443/', f'https://{MASK}@example.com:8443/'),
        ('https://a:b@c@example.com/', f'https://{MASK}@example.com/'),
        ('https://example.com/?key=secret&x=1', f'https://example.com/?key={MASK}&x={MASK}'),
        ('https://example.com/?secret', f'https://example.com/?{MASK}'),
        ('https://example.com/?a=b=c', f'https://example.com/?a={MASK}'),
        ('https://example.com/?key=secret#fragment', f'https://example.com/?key={MASK}'),
        ('https://example.com/#secret', 'https://example.com/'),
        ('http://[::1?key=secret', f'http://{MASK}'),
        ('/hook?key=secret', f'/hook?key={MASK}'),
        ('', ''),
        # requests ends the host at a backslash, and unescapes it.
        ('http://127.0.0.1:8425\\@trusted.example.com/hook', f'http://127.0.0.1:8425/{MASK}'),
        ('http://127.0.0.1\\/@trusted.example.com/?key=secret', f'http://127.0.0.1/{MASK}?key={MASK}'),
        ('http://u:secret@127.0.0.1\\@trusted.example.com/', f'http://{MASK}@127.0.0.1/{MASK}'),
        ('http://user:secret\\@trusted.example.com/', f'http://{MASK}/{MASK}'),
        ('http://[::1]:80\\@trusted.example.com/', f'http://{MASK}'),
        ('http://%31%32%37.0.0.1:80/hook', 'http://127.0.0.1:80/hook'),
        ('http://a%2Fb.example/', 'http://a%2Fb.example/'),
        ('http://[fe80::1%25eth0]/', 'http://[fe80::1%25eth0]/'),
        ('http://user:\ue0007\ue001@a.example/\ue0007\ue001', f'http://{MASK}@a.example/\ue0007\ue001'),
    ],
)
def test_neither_user_nor_query_is_shown(url: str, shown: str):
    assert mask_url(url) == mask_template(url) == shown


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        ('{{ data.url }}', '{{ data.url }}'),
        ('http://{{ data.host }}:{{ data.port }}/x', 'http://{{ data.host }}:{{ data.port }}/x'),
        ('http://127.0.0.1\\@{{ data.host }}/x', f'http://127.0.0.1/{MASK}'),
        ('{{ data.url }}?key=secret', f'{{{{ data.url }}}}?key={MASK}'),
        ('https://{{ data.host }}/x?a={{ data.name }}', f'https://{{{{ data.host }}}}/x?a={MASK}'),
        # Text inside a template does not end the host, and is no host itself.
        ('https://u:secret@{{ data["host"] }}/x', f'https://{MASK}@{{{{ data["host"] }}}}/x'),
        ('https://u:{{ "/?#" }}secret@example.com/', f'https://{MASK}@example.com/'),
        ('https://u:secret@[{{ data.address }}/', f'https://{MASK}'),
        # Without the template there is no scheme.
        ('{{ scheme }}://u:secret@example.com/x', f'{{{{ scheme }}}}://{MASK}@example.com/x'),
        (
            '{% if x %}https://u:secret@a{% else %}http://u:secret@b{% endif %}/x?key=secret',
            f'{{% if x %}}https://{MASK}@a{{% else %}}http://{MASK}@b{{% endif %}}/x?key={MASK}',
        ),
        # A URL that is too long is never stored, so nothing of it is read.
        ('{' * (MAX_URL_CHARS + 1), MASK),
    ],
)
def test_templates_in_a_url_are_shown(url: str, shown: str):
    assert mask_template(url) == shown


def test_a_url_from_an_endpoint_is_not_taken_for_a_template():
    assert mask_url('https://u:{{ "/" }}@example.com/') == 'https://u:{{ "/" }}@example.com/'
