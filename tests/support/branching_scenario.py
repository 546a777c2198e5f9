"""Runs for test_branching.py in its own process. Prints one JSON object."""

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from core.models import ObjectType
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import RequestFactory
from extras.models import EventRule, Tag
from netbox.context_managers import event_tracking
from netbox_branching.events import BRANCH_MERGED
from netbox_branching.models import Branch
from netbox_branching.utilities import activate_branch
from tenancy.models import Tenant
from users.models import User
from utilities.exceptions import AbortTransaction

from webhooks.engine.deliver import lane
from webhooks.engine.process import inline
from webhooks.models import Event, ListMember, Subscription, Webhook

# Changes that a request of a change set holds, and objects that a branch creates beside: together they are more.
PART_DELIVERIES, MANY = 40, 60
# The tenant whose sites are a list. Its slug is another one in each branch.
OWNER = 'owner'


@contextmanager
def request_by(user: User, alias: str = 'default') -> Iterator[None]:
    request = RequestFactory().post('/')
    request.user, request.id = user, uuid.uuid4()
    with event_tracking(request), transaction.atomic(using=alias):
        yield


def subscribe(url: str, **fields) -> Webhook:
    webhook = Webhook.objects.create(
        name=url, payload_url=url, type_create=True, type_update=True, type_delete=True, **fields
    )
    webhook.object_types.set(ContentType.objects.get_for_models(Site, Tenant).values())
    return webhook


def tell_of_merges(url: str) -> None:
    webhook = Webhook.objects.create(name=url, payload_url=url, type_create=True)
    rule = EventRule.objects.create(
        name='merges', event_types=[BRANCH_MERGED], action_type='webhooks.send', action_object=webhook
    )
    rule.object_types.add(ObjectType.objects.get_for_model(Branch))


def work_in(branch: Branch, user: User, new: str, many: int) -> None:
    with activate_branch(branch):
        with request_by(user, branch.connection_name):
            place = Site.objects.create(name=new, slug=new, tenant=Tenant.objects.get(name=OWNER))
            place.tags.add(Tag.objects.get())
        with request_by(user, branch.connection_name):
            edited = Site.objects.get(name__startswith='edited')
            edited.snapshot()
            edited.name = f'edited by {new}'
            edited.save()
        with request_by(user, branch.connection_name):
            Site.objects.get(name=f'doomed by {new}').delete()
        with request_by(user, branch.connection_name):
            for number in range(many):
                Tenant.objects.create(name=f'{new} {number}', slug=f'{new}-{number}')


def count_copy(webhook: Webhook) -> int:
    """Count the sites that the receiver has: they are those of the list."""
    copy = set(ListMember.objects.filter(webhook_id=webhook.pk).values_list('object_id', flat=True))
    assert copy == set(Site.objects.filter(tenant__name=OWNER).values_list('pk', flat=True))
    return len(copy)


def kinds(events: list[Event]) -> list[tuple[str, str]]:
    return sorted((event.kind, event.snapshot['row']['name']) for event in events)


def try_to_merge(branch: Branch, user: User) -> None:
    """Merge in vain, then change an object in main: in a transaction of its own, and in the one that goes on."""
    with suppress(AbortTransaction):
        branch.merge(user, commit=False)
    with request_by(user):
        Tenant.objects.create(name='beside', slug='beside')
    with request_by(user):
        Tenant.objects.create(name='before', slug='before')
        with suppress(AbortTransaction):
            branch.merge(user, commit=False)
        Tenant.objects.create(name='after', slug='after')


def run(url: str, strategy: str) -> dict:
    user = User.objects.create_superuser(f'user-{strategy}')
    new = f'new-{strategy}'
    Site.objects.create(name=f'doomed by {new}', slug=f'doomed-{strategy}')
    branch = Branch(name=strategy, merge_strategy=strategy)
    branch.save(provision=False)
    branch.provision(user)
    branch = Branch.objects.get(pk=branch.pk)
    webhook = subscribe(f'{url}/{strategy}', payload_format='netbox')
    whole = subscribe(f'{url}/sets/{strategy}', change_set=True)
    Event.objects.all().delete()

    work_in(branch, user, new, MANY if strategy == 'iterative' else 0)
    in_branch = kinds(list(Event.objects.all()))
    with activate_branch(branch):
        defined = subscribe(f'{url}/in-the-branch-{strategy}')
        Tenant.objects.filter(name=OWNER).update(slug=new)
        listed = subscribe(f'{url}/list-{strategy}', filters={'dcim.site': f'tenant={OWNER}'})
        listed.save()
    copies = [count_copy(listed)]
    subscriptions = Subscription.objects.filter(webhook=defined).count()
    is_in_main = Webhook.objects.filter(pk=defined.pk).exists()
    defined.delete()

    branch = Branch.objects.get(pk=branch.pk)
    if strategy == 'squash':
        try_to_merge(branch, user)
    branch.merge(user, commit=True)
    events = list(Event.objects.exclude(kind=BRANCH_MERGED))
    merged = [event for event in events if event.branch]
    inline.run()
    copies.append(count_copy(listed))
    tags = [tag.name for tag in Site.objects.get(name=new).tags.all()]
    if strategy == 'squash':
        branch.revert(user, commit=True)
        inline.run()
        copies.append(count_copy(listed))
    webhook.delete()
    whole.delete()
    listed.delete()
    return {
        'branch': {'id': branch.pk, 'name': strategy},
        'transactions': len({event.transaction_id for event in merged}),
        'beside': [event.snapshot['row']['name'] for event in events if not event.branch],
        'in_branch': in_branch,
        'merged': kinds([event for event in merged if event.object_type.model == 'site']),
        'defined': [is_in_main, subscriptions],
        'tags': tags,
        'copies': copies,
    }


def main(url: str) -> None:
    lane.PART_DELIVERIES = PART_DELIVERIES
    Tag.objects.create(name='core', slug='core')
    Site.objects.create(name='edited', slug='edited', tenant=Tenant.objects.create(name=OWNER, slug=OWNER))
    tell_of_merges(f'{url}/merges')
    print(json.dumps({strategy: run(url, strategy) for strategy in ('iterative', 'squash')}))


main(sys.argv[-1])
