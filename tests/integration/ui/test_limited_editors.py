"""An editor may change a webhook, but not view or write all that belongs to it."""

from typing import Any

import pytest
from dcim.models import Site
from extras.models import NotificationGroup
from support.builders import subscribe
from users.models import User

from webhooks.models import Credential, Webhook
from webhooks.services import secret_rotation

pytestmark = pytest.mark.usefixtures('saves')

PAGES = '/plugins/webhooks/webhooks/'
LISTS = {'ignore_users': User, 'notification_groups': NotificationGroup}


def credential(name: str) -> Credential:
    made = Credential(name=name, type='bearer', secret='tok3n', hosts=['a.example'])
    made.full_clean()
    made.save()
    return made


@pytest.fixture
def webhook(saves: None) -> Webhook:
    webhook = subscribe('https://a.example/hook', Site, name='dev-receiver', credential=credential('Stored'))
    webhook.ignore_users.set(User.objects.create_user(username=name) for name in ('hidden', 'shown'))
    groups = (NotificationGroup.objects.create(name=name) for name in ('hidden', 'shown'))
    webhook.notification_groups.set(groups)
    return webhook


def offered(form: Any, name: str) -> Any:
    """A browser sends only options that the page has."""
    value, field = form[name].value(), form.fields[name]
    if name not in {*LISTS, 'credential'}:
        return value
    keys = [one.pk for one in field.queryset]
    return keys if name in LISTS else (keys or [''])[0]


def save(pages: Any, webhook: Webhook, **entered: Any) -> Any:
    address = f'{PAGES}{webhook.pk}/edit/'
    form = pages.get(address).context['form']
    sent = {name: offered(form, name) for name in form.fields}
    sent['object_types_1'] = sent.pop('object_types')
    sent = {name: value for name, value in (sent | entered).items() if value not in (None, False)}
    answer = pages.post(address, sent)
    webhook.refresh_from_db()
    return answer


def names(webhook: Webhook, field: str) -> list[str]:
    return sorted(str(one) for one in getattr(webhook, field).all())


class TestHiddenObjects:
    @pytest.fixture
    def pages(self, clerk_pages, grant) -> Any:
        grant(Webhook, 'view', 'change')
        return clerk_pages

    def test_related_objects_that_the_editor_may_not_view_stay(self, pages, webhook):
        answer = save(pages, webhook, description='changed')
        assert answer.status_code == 302, answer.context['form'].errors
        assert webhook.description == 'changed'
        assert [names(webhook, field) for field in LISTS] == [['hidden', 'shown']] * 2
        assert str(webhook.credential) == 'Stored'

    def test_an_editor_who_may_view_it_empties_it(self, pages, grant, webhook):
        for model in (*LISTS.values(), Credential):
            grant(model, 'view')
        answer = save(pages, webhook, ignore_users=[], notification_groups=[], credential='')
        assert answer.status_code == 302, answer.context['form'].errors
        assert [names(webhook, field) for field in LISTS] == [[], []]
        assert webhook.credential is None

    def test_an_editor_changes_the_visible_part_of_a_list_and_the_hidden_part_stays(self, pages, grant, webhook):
        grant(User, 'view', username__in=['shown', 'added'])
        grant(NotificationGroup, 'view', name='shown')
        added = User.objects.create_user(username='added')
        answer = save(pages, webhook, ignore_users=[added.pk], notification_groups=[])
        assert answer.status_code == 302, answer.context['form'].errors
        assert names(webhook, 'ignore_users') == ['added', 'hidden']
        assert names(webhook, 'notification_groups') == ['hidden']

    def test_another_credential_replaces_the_hidden_one(self, pages, grant, webhook):
        grant(Credential, 'view', name='Other')
        answer = save(pages, webhook, credential=credential('Other').pk)
        assert answer.status_code == 302, answer.context['form'].errors
        assert str(webhook.credential) == 'Other'

    def test_a_hidden_one_cannot_be_chosen(self, pages, webhook):
        hidden = User.objects.create_user(username='another')
        entered = {'ignore_users': [hidden.pk], 'credential': credential('Another').pk}
        answer = save(pages, webhook, **entered)
        assert set(answer.context['form'].errors) == set(entered)


def test_a_refused_change_shows_no_new_secret(clerk_pages, grant, webhook):
    grant(Webhook, 'view')
    grant(Webhook, 'change', name__startswith='dev-')
    answer = save(clerk_pages, webhook, name='prod-receiver', generate_secret='on')
    assert answer.context['form'].non_field_errors()
    assert (webhook.name, bool(webhook.secret)) == ('dev-receiver', False)
    assert not secret_rotation.is_waiting(clerk_pages.session, webhook)


def test_after_a_refused_change_an_entered_secret_is_asked_for_again(clerk_pages, grant, webhook):
    grant(Webhook, 'view')
    grant(Webhook, 'change', name__startswith='dev-')
    answer = save(clerk_pages, webhook, name='prod-receiver', secret='s3cret')
    assert answer.context['form'].errors['secret'] == ['Enter the secret again.']
    answer = save(clerk_pages, webhook, name='prod-receiver')
    assert 'secret' not in answer.context['form'].errors
