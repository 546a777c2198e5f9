"""No part of a change set is larger than brokers and web servers take by default."""

from collections.abc import Iterable
from typing import Any

import pytest
from dcim.models import Interface, Site
from django.db.models import Model
from ipam.models import VLAN
from support.builders import device, interface, site, subscribe
from support.builtin import request_by
from support.engine import work
from users.models import User

from devstack.receiver import Receiver
from webhooks.choices import FormatChoices

pytestmark = pytest.mark.usefixtures('committed')

# Kafka's message.max.bytes. NATS' max_payload and nginx's client_max_body_size are 1 MiB.
MAX_BODY_BYTES = 1_000_000
# The thin one leaves out what is long.
FORMATS = [one for one in FormatChoices.values() if one != FormatChoices.THIN]


def subscribe_each(receiver: Receiver, model: type[Model], formats: Iterable[str] = FORMATS, **fields: Any) -> None:
    """Let a webhook for each format send change sets to the path of its name."""
    for one in formats:
        subscribe(receiver.url(f'/{one}'), model, change_set=True, payload_format=one, **fields)


def tag_vlans(count: int, user: User) -> None:
    """Make so many interfaces with 100 VLANs each, in one transaction."""
    owner = device()
    vlans = VLAN.objects.bulk_create(VLAN(vid=number, name=f'vlan {number}') for number in range(1, 101))
    with request_by(user):
        for _ in range(count):
            interface(owner, mode='tagged').tagged_vlans.set(vlans)


def check(receiver: Receiver, formats: Iterable[str] = FORMATS, *, filled: float) -> None:
    """Assert that each format has several bodies below the limit, the largest `filled` to that share of it."""
    work()
    for one in formats:
        bodies = [len(request.body) for request in receiver.matching(lambda sent, path=f'/{one}': sent.path == path)]
        assert len(bodies) > 1, one
        assert filled * MAX_BODY_BYTES < max(bodies) < MAX_BODY_BYTES, one


def test_many_objects_fit_with_their_envelopes(receiver: Receiver, netbox_user):
    subscribe_each(receiver, Site)
    with request_by(netbox_user):
        for number in range(450):
            site(comments=f'{number:01400}')
    check(receiver, filled=0.3)


def test_snapshots_fit_though_postgresql_stores_them_compressed(receiver: Receiver, netbox_user):
    subscribe_each(receiver, Site, include_snapshots=True)
    with request_by(netbox_user):
        for _ in range(40):
            site(comments='wörter und wörter ' * 1000)
    check(receiver, filled=0.8)


def test_a_body_with_long_changelog_messages_is_not_too_large_for_a_part(receiver: Receiver, netbox_user):
    with_messages = (FormatChoices.DEFAULT, FormatChoices.CLOUDEVENTS)
    subscribe_each(receiver, Site, with_messages)
    with request_by(netbox_user):
        for number in range(700):
            place = Site(name=f's{number}', slug=f's{number}')
            place._changelog_message = '変' * 200
            place.save()
    check(receiver, with_messages, filled=0.6)


def test_a_body_with_expanded_objects_is_not_too_large_for_a_part(receiver: Receiver, netbox_user):
    subscribe_each(receiver, Interface, expand=['tagged_vlans'])
    tag_vlans(25, netbox_user)
    check(receiver, filled=0.6)


def test_what_other_webhooks_expand_splits_nothing(receiver: Receiver, netbox_user):
    subscribe(receiver.url('/expanded'), Interface, change_set=True, expand=['tagged_vlans'])
    subscribe(receiver.url('/brief'), Interface, change_set=True)
    tag_vlans(20, netbox_user)
    work()
    expanded, brief = (receiver.matching(lambda one, path=path: one.path == path) for path in ('/expanded', '/brief'))
    assert (len(expanded) > 1, len(brief)) == (True, 1)
