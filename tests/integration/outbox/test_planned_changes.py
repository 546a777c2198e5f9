"""What NetBox plans to change: signals that come twice, and requests that are dispatched again after a deadlock."""

import pytest
from dcim.models import Site
from django.db import DEFAULT_DB_ALIAS, OperationalError, transaction
from django.db.models.signals import post_save
from support.builders import CREATED, NOWHERE, changes, named, recorded, site, subscribe
from support.builtin import request_by

pytestmark = pytest.mark.usefixtures('committed')


def test_a_creation_whose_signal_comes_twice_is_one_event():
    subscribe(NOWHERE, Site)
    with transaction.atomic():
        place = site()
        post_save.send(
            Site, instance=place, created=True, raw=False, using=DEFAULT_DB_ALIAS, update_fields=None,
            post_raw_create=True,
        )  # fmt: skip
    assert changes(Site) == [(CREATED, place.pk)]


def test_a_request_that_is_dispatched_again_after_a_deadlock_leaves_nothing_of_the_first_try(netbox_user):
    subscribe(NOWHERE, Site)
    fields = named('site')
    with pytest.raises(OperationalError, match='deadlock'), request_by(netbox_user):
        Site.objects.create(**fields)
        raise OperationalError('deadlock detected')
    assert recorded(Site) == []
    with request_by(netbox_user):
        Site.objects.create(**fields)
    (event,) = recorded(Site)
    assert (event.kind, event.username, event.request_id is None) == (CREATED, netbox_user.username, False)
