"""Authors of templates look for the placeholders of signatures and credentials."""

import pytest
from dcim.models import Site
from support.admin_browser import page_of
from support.builders import site, subscribe
from support.cases import first
from support.engine import work

from devstack.receiver import Receiver
from webhooks.models import Credential, Delivery

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks/'
TOKEN = 'tok3n-of-awx'
# The value of a credential is a placeholder while templates are rendered. Its beginning is the mark of all of them.
STOLEN_MARK = '{{ credential.token[:33] }}'
FORGED = ['credential-nope', 'credential-password', 'hmac-md5-hex-body-old', 'credential', 'hmac', 'hmac-sha256-hex']


@pytest.mark.parametrize('key', first(3, FORGED))
def test_a_forged_placeholder_is_sent_as_text_and_breaks_no_page(receiver: Receiver, admin_pages, api_client, key):
    hosts = [receiver.url('')]
    credential = Credential.objects.create(name='AWX', type='template', secret=TOKEN, hosts=hosts)
    forged = f'{STOLEN_MARK}_{key}_'
    texts = {'body_template': forged, 'additional_headers': f'X-Forged: {forged}'}
    webhook = subscribe(receiver.url('/'), Site, credential=credential, secret='s3cret', **texts)
    site()
    work()
    request = receiver.requests[0]
    for sent in (request.header('X-Forged'), request.body.decode()):
        # A bearer token has no password.
        assert sent.endswith('' if key == 'credential-password' else f'_{key}_')
        assert TOKEN not in sent
    delivery = Delivery.objects.get()
    assert delivery.status == 'delivered'
    pages = [f'{webhook.get_absolute_url()}preview/', delivery.get_absolute_url(), page_of(webhook), page_of(delivery)]
    answers = (f'{API}webhooks/{webhook.pk}/preview/', f'{API}deliveries/')
    shown = [*map(admin_pages.get, pages), *map(api_client.get, answers)]
    assert [answer.status_code for answer in shown] == [200] * 6


def test_a_template_has_no_name_for_the_mark(receiver: Receiver):
    subscribe(receiver.url('/'), Site, secret='s3cret', body_template='[{{ _mark }}]')
    site()
    work()
    assert receiver.requests[0].body == b'[]'
