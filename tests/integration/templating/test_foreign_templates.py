"""Export templates, custom links and config templates can read our models."""

from datetime import timedelta

import pytest
from core.models import ObjectType
from dcim.models import Site
from extras.models import ConfigTemplate, CustomLink, ExportTemplate
from jinja2.exceptions import SecurityError, UndefinedError
from support.builders import site, subscribe
from support.log import delivery, event

from webhooks.models import Webhook
from webhooks.security import signing
from webhooks.security.masking import MASK

SECRETS = ('pa55word', 't0ken', 'b3arer', 's3cret', 'whsk_', 'gAAAA')
SHOWN_URL = f'https://{MASK}@a.example/in?key={MASK}'
# `values_list()` does not read whether the path is secret.

pytestmark = pytest.mark.usefixtures('db')


@pytest.fixture
def webhook(db: None) -> Webhook:
    webhook = subscribe(
        'https://user:pa55word@a.example/in?key=t0ken',
        Site,
        name='Receiver',
        additional_headers='Authorization: Bearer b3arer',
        secret=signing.generate(signing.PRIVATE),
    )
    webhook.rotate_secret('s3cret', timedelta(days=1))
    webhook.save()
    delivery(event(site(name='Bern')), webhook)
    return webhook


def export(code: str) -> str:
    return ExportTemplate(name='export', template_code=code).render(queryset=Webhook.objects.all())


def of_each(expression: str) -> str:
    return f'{{% for obj in queryset %}}{{{{ {expression} }}}}{{% endfor %}}'


@pytest.mark.parametrize(
    ('expression', 'text'),
    [
        ('obj.secret', MASK),
        ('obj.previous_secret', MASK),
        ('obj.additional_headers', MASK),
        ('obj.masked_headers', f'Authorization: {MASK}'),
        ('obj.payload_url', SHOWN_URL),
        ("obj.payload_url ~ ''", SHOWN_URL),
        ("obj.payload_url + ''", SHOWN_URL),
        ('obj.payload_url | upper', SHOWN_URL.upper()),
        ("obj.payload_url[:8] ~ obj.payload_url.split('@')[0]", f'https://https://{MASK}'),
        ("'%s' % obj.payload_url", SHOWN_URL),
        ("[obj] | map(attribute='payload_url') | join", SHOWN_URL),
        ("queryset.values_list('payload_url', flat=True) | join", SHOWN_URL),
        ("queryset.values_list('secret', flat=True) | join", MASK),
        ('obj.public_key', ''),
    ],
)
def test_an_export_shows_the_mask(webhook: Webhook, expression: str, text: str):
    assert export(of_each(expression)) == text


@pytest.mark.parametrize(
    'expression',
    [
        'obj.secret.reveal()',
        'obj.secret._token',
        'obj.secrets()',
        'obj.payload_url.reveal()',
        'obj.payload_url._url',
        "obj.payload_url | attr('_url')",
        "'{0._url}'.format(obj.payload_url)",
        'obj.__dict__',
    ],
)
def test_a_template_reaches_no_secret_behind_the_mask(webhook: Webhook, expression: str):
    assert export(of_each('obj.name')) == 'Receiver'
    try:
        shown = export(of_each(expression))
    except (SecurityError, UndefinedError):
        return
    assert not [secret for secret in SECRETS if secret in shown]


def test_nothing_of_the_log_holds_a_secret(webhook: Webhook):
    """Export templates see payloads without object permissions, as the docs warn."""
    shown = export(of_each('obj.deliveries.all()[0].event.data ~ obj.deliveries.all()[0].attempts.all()[0].url'))
    assert 'Bern' in shown
    assert not [secret for secret in SECRETS if secret in shown]


def test_a_custom_link_shows_the_mask(webhook: Webhook):
    link = CustomLink(name='link', link_text='{{ object.secret }} {{ object.payload_url }}', link_url='/')
    link.save()
    link.object_types.add(ObjectType.objects.get_for_model(Webhook))
    assert link.render({'object': webhook})['text'] == f'{MASK} {SHOWN_URL}'


def test_a_config_template_shows_the_mask(webhook: Webhook):
    """Config templates see all models by name."""
    shown = ConfigTemplate(name='config', template_code='{{ webhooks.Webhook.objects.first().payload_url }}').render({})
    assert shown == SHOWN_URL
