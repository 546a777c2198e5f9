"""The admin's form has its own tests."""

import base64
from collections.abc import Iterator
from datetime import timedelta

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils import timezone
from netbox.signals import post_clean
from standardwebhooks import Webhook as Verifier
from support.admin_browser import changes_of, filled, page_of
from support.builders import subscribe
from support.engine import count_blocked, in_thread, is_anybody_blocked, open_transaction
from support.settings import change_settings

from devstack.process import wait_until
from webhooks.engine.process import inline
from webhooks.models import Delivery, Webhook
from webhooks.models.fields import Sealed
from webhooks.presentation.moments import moment
from webhooks.security import signing
from webhooks.services import secret_rotation

BASE = '/api/plugins/webhooks/webhooks/'
PAGES = '/plugins/webhooks/webhooks/'


@pytest.fixture
def webhook(committed, receiver):
    return subscribe(receiver.url('/hook'), Site, secret='whsec_' + base64.b64encode(b'k' * 24).decode())


def test_after_a_rotation_both_secrets_verify_until_the_old_one_expires(webhook, api_client, receiver):
    old = webhook.secret.reveal()
    answer = api_client.post(f'{BASE}{webhook.pk}/rotate-secret/', {'overlap': '01:00:00'}, format='json')
    assert answer.status_code == 200, answer.data
    assert answer['Cache-Control'] == 'no-store'
    Site.objects.create(name='Bern', slug='bern')
    inline.run()
    (got,) = receiver.wait_for(1)
    for secret in (answer.data['secret'], old):
        Verifier(secret).verify(got.body, {name.lower(): value for name, value in got.headers})
    Webhook.objects.filter(pk=webhook.pk).update(previous_secret_expires=timezone.now() - timedelta(seconds=1))
    Site.objects.create(name='Genf', slug='genf')
    inline.run()
    assert ' ' not in receiver.wait_for(2)[1].header('webhook-signature')


@pytest.mark.parametrize('overlap', ['-00:00:01', '365 00:00:01'])
def test_an_overlap_of_less_than_nothing_or_more_than_a_year_is_refused(webhook, api_client, overlap):
    answer = api_client.post(f'{BASE}{webhook.pk}/rotate-secret/', {'overlap': overlap}, format='json')
    assert (answer.status_code, list(answer.data)) == (400, ['overlap'])


def test_an_old_one_that_cannot_be_decrypted_is_named(webhook, receiver):
    """The receiver may still rely on it."""
    tomorrow = timezone.now() + timedelta(days=1)
    Webhook.objects.filter(pk=webhook.pk).update(
        previous_secret=Sealed('of another key'), previous_secret_expires=tomorrow
    )
    Site.objects.create(name='Bern', slug='bern')
    inline.run()
    assert 'previous_secret: The stored value cannot be decrypted' in Delivery.objects.get().error
    assert not receiver.requests


class TestWhatIsKept:
    """`encryption_keys` rotate too."""

    def test_the_old_secret_is_encrypted_anew(self, webhook, monkeypatch):
        old, new = 'o' * 50, 'n' * 50
        change_settings(monkeypatch, encryption_keys=(old,))
        webhook.secret = 's3cret'
        webhook.save()
        change_settings(monkeypatch, encryption_keys=(new, old))
        secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1))
        change_settings(monkeypatch, encryption_keys=(new,))
        assert Webhook.objects.get().secrets()[1] == 's3cret'

    def test_an_old_secret_that_cannot_be_decrypted_is_not_kept(self, webhook, receiver):
        """Rotating is the way out of such an error, and must end it at once."""
        Webhook.objects.update(secret=Sealed('of another key'))
        _webhook, secret = secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1))
        Site.objects.create(name='Bern', slug='bern')
        inline.run()
        (got,) = receiver.wait_for(1)
        Verifier(secret).verify(got.body, {name.lower(): value for name, value in got.headers})


def test_a_rotation_keeps_what_others_change_meanwhile(webhook):
    """Another user's change is uncommitted when the second rotation begins."""
    _webhook, first = secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1))
    with transaction.atomic():
        Webhook.objects.update(description='changed meanwhile')
        second = in_thread(lambda: secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1)))
        assert wait_until(is_anybody_blocked, timeout=30)
    second.join(30)
    rotated = Webhook.objects.get()
    assert rotated.description == 'changed meanwhile'
    assert (len(rotated.secrets()), rotated.secrets()[1]) == (2, first)


@pytest.fixture
def rotated(webhook) -> Webhook:
    secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1))
    rotated = Webhook.objects.get()
    assert len(rotated.secrets()) == 2
    return rotated


class TestOtherDoors:
    """Without a rotation, the new secret replaces all former ones."""

    def test_the_api_replaces_both_secrets(self, rotated, api_client):
        answer = api_client.patch(f'{BASE}{rotated.pk}/', {'secret': 'new'}, format='json')
        assert answer.status_code == 200, answer.data
        assert Webhook.objects.get().secrets() == ['new']

    def test_the_api_for_many(self, rotated, api_client):
        answer = api_client.patch(BASE, [{'id': rotated.pk, 'secret': 'new'}], format='json')
        assert answer.status_code == 200, answer.data
        assert Webhook.objects.get().secrets() == ['new']

    def test_a_secret_that_a_bulk_edit_replaces_ends_the_previous_one(self, rotated, admin_pages):
        answer = admin_pages.post(f'{PAGES}edit/', {'pk': rotated.pk, 'secret': 'new', '_apply': ''})
        assert answer.status_code == 302, answer.context['form'].errors
        assert Webhook.objects.get().secrets() == ['new']

    def test_an_import_replaces_both_secrets(self, rotated, admin_pages):
        lines = f'id,secret\n{rotated.pk},new'
        answer = admin_pages.post(f'{PAGES}import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
        assert answer.status_code == 302, answer.context['form'].errors
        assert Webhook.objects.get().secrets() == ['new']

    @pytest.mark.parametrize('is_repeated', [True, False])
    def test_a_rotated_webhook_keeps_both_secrets_unless_one_is_replaced(self, rotated, api_client, is_repeated):
        sent = {'secret': rotated.secret.reveal()} if is_repeated else {'description': 'changed'}
        assert api_client.patch(f'{BASE}{rotated.pk}/', sent, format='json').status_code == 200
        assert Webhook.objects.get().secrets() == rotated.secrets()


@pytest.fixture
def meanwhile(webhook) -> Iterator[list[str]]:
    """Another user rotates the secret while an edit is checked."""
    secrets = []

    def rotate(**_kwargs: object) -> None:
        if not secrets:
            secrets.append(secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1))[1])

    post_clean.connect(rotate, sender=Webhook)
    yield secrets
    post_clean.disconnect(rotate, sender=Webhook)


class TestEdits:
    """An edit writes all columns, though it read them seconds before."""

    @pytest.mark.parametrize('door', ['api', 'form', 'bulk edit', 'admin'])
    def test_a_rotation_meanwhile_stays(self, webhook, meanwhile, api_client, admin_pages, door):
        old, change = webhook.secret.reveal(), {'description': 'edited'}
        if door == 'api':
            answer = api_client.patch(f'{BASE}{webhook.pk}/', change, format='json')
        elif door == 'form':
            answer = admin_pages.post(f'{PAGES}{webhook.pk}/edit/', filled(**change))
        elif door == 'bulk edit':
            answer = admin_pages.post(f'{PAGES}edit/', {'pk': webhook.pk, '_apply': '', **change})
        else:
            answer = admin_pages.post(page_of(webhook), filled(**change))
        assert answer.status_code in (200, 302)
        stored = Webhook.objects.get()
        assert (stored.description, stored.secrets()) == ('edited', [*meanwhile, old])
        made = changes_of(webhook)[-1]
        assert made.prechange_data['stamps'] == made.postchange_data['stamps']
        assert made.postchange_data['stamps']['secret'] == stored.secret.stamp

    def test_a_secret_that_the_edit_brings_signs_alone(self, webhook, meanwhile, api_client):
        assert api_client.patch(f'{BASE}{webhook.pk}/', {'secret': 'new'}, format='json').status_code == 200
        assert meanwhile
        assert Webhook.objects.get().secrets() == ['new']

    @pytest.mark.parametrize('names', [None, ['enabled']], ids=['all', 'one column'])
    def test_a_field_that_is_changed_back_and_forth_is_saved_each_time(self, webhook, names):
        edited = Webhook.objects.get(pk=webhook.pk)
        for enabled in (False, True, False):
            edited.enabled = enabled
            edited.save(update_fields=names)
            assert Webhook.objects.get(pk=webhook.pk).enabled == enabled
            edited.save()
            assert Webhook.objects.get(pk=webhook.pk).enabled == enabled

    def test_a_change_whose_save_was_rolled_back_is_saved_by_the_next_save(self, webhook):
        edited = Webhook.objects.get(pk=webhook.pk)
        edited.enabled = False
        with transaction.atomic():
            edited.save()
            transaction.set_rollback(True)
        edited.save()
        assert not Webhook.objects.get(pk=webhook.pk).enabled

    def test_a_webhook_that_was_read_in_part_or_again_does_not_bring_an_old_secret_back(self, webhook):
        part, again = Webhook.objects.defer('secret').get(), Webhook.objects.get()
        _webhook, new = secret_rotation.rotate(webhook.pk, signing.SYMMETRIC, timedelta(hours=1))
        part.description = 'edited'
        part.save()
        again.refresh_from_db(fields=['secret'])
        again.save()
        assert Webhook.objects.get().secrets()[0] == new
        again.secret = 'another'
        again.save()
        assert Webhook.objects.get().secret.reveal() == 'another'


@pytest.mark.parametrize('secret', ['********', 'x' * 1001])
class TestRefused:
    def test_a_bulk_edit_keeps_the_old_one(self, webhook, admin_pages, secret):
        answer = admin_pages.post(f'{PAGES}edit/', {'pk': webhook.pk, 'secret': secret, '_apply': ''})
        assert 'secret' in str(answer.context['form'].errors)
        assert Webhook.objects.get().secret == webhook.secret

    def test_where_it_is_stored_other_fields_can_be_edited(self, webhook, api_client, secret):
        Webhook.objects.update(secret=Sealed.of(secret))
        answer = api_client.patch(f'{BASE}{webhook.pk}/', {'description': 'edited'}, format='json')
        assert answer.status_code == 200, answer.data
        assert Webhook.objects.get().secret.reveal() == secret


def test_two_rotations_of_what_was_read_once_both_sign(webhook, api_client):
    answers = {}

    def rotate() -> None:
        answer = api_client.post(f'{BASE}{webhook.pk}/rotate-secret/', {}, format='json')
        answers[answer.data['secret']] = answer.data['previous_until']

    with open_transaction(lambda: Webhook.objects.select_for_update().get()):
        rotating = [in_thread(rotate) for _ in range(2)]
        assert wait_until(lambda: count_blocked() == 2, timeout=30)
    for thread in rotating:
        thread.join(30)
    last, first = Webhook.objects.get().secrets()
    assert answers.keys() == {last, first}
    assert answers[last] is not None


def test_an_asymmetric_key_shows_its_public_half(webhook, api_client):
    answer = api_client.post(f'{BASE}{webhook.pk}/rotate-secret/', {'prefix': 'whsk_'}, format='json')
    assert answer.data['secret'].startswith('whsk_')
    shown = api_client.get(f'{BASE}{webhook.pk}/').data
    assert shown['public_key'] == answer.data['public_key'] != ''
    assert 'secret' not in shown


class TestKeyPairBesideHmac:
    """hmac() needs a secret that the receiver shares."""

    @pytest.fixture
    def signing_itself(self, webhook) -> Webhook:
        webhook.additional_headers = 'X-Hub-Signature-256: sha256={{ hmac() }}'
        webhook.save()
        return webhook

    def test_the_api_refuses_it(self, signing_itself, api_client):
        answer = api_client.post(f'{BASE}{signing_itself.pk}/rotate-secret/', {'prefix': 'whsk_'}, format='json')
        assert (answer.status_code, list(answer.data)) == (400, ['secret'])
        assert Webhook.objects.get().secrets() == signing_itself.secrets()

    def test_the_page_refuses_it(self, signing_itself, admin_pages):
        entered = {'prefix': 'whsk_', 'keep_previous': '0'}
        answer = admin_pages.post(f'{PAGES}{signing_itself.pk}/rotate-secret/', entered)
        assert 'hmac() in a header needs it' in answer.content.decode()
        assert Webhook.objects.get().secrets() == signing_itself.secrets()

    def test_another_shared_secret_signs(self, signing_itself, api_client):
        assert api_client.post(f'{BASE}{signing_itself.pk}/rotate-secret/', {}, format='json').status_code == 200


def test_a_rotation_needs_permission_to_change(webhook, clerk_api):
    assert clerk_api.post(f'{BASE}{webhook.pk}/rotate-secret/', {}, format='json').status_code in (403, 404)
    assert Webhook.objects.get(pk=webhook.pk).previous_secret.reveal() == ''


class TestPages:
    def rotate(self, browser, webhook: Webhook, **entered: str):
        return browser.post(f'{PAGES}{webhook.pk}/rotate-secret/', entered, follow=True)

    def test_a_new_secret_is_shown_once(self, webhook, admin_pages):
        old = webhook.secret.reveal()
        answer = self.rotate(admin_pages, webhook, prefix='whsec_', keep_previous='24')
        new, previous = Webhook.objects.get().secrets()
        assert (previous, new.startswith('whsec_')) == (old, True)
        assert new in answer.content.decode()
        assert new not in admin_pages.get(webhook.get_absolute_url()).content.decode()
        remaining = Webhook.objects.get().previous_secret_expires - timezone.now()
        assert timedelta(hours=23) < remaining <= timedelta(hours=24)

    def test_the_old_secret_is_kept_for_a_day_by_default(self, webhook, admin_pages):
        form = admin_pages.get(f'{PAGES}{webhook.pk}/rotate-secret/').context['form']
        assert form['keep_previous'].value() == '24'
        self.rotate(admin_pages, webhook, prefix='whsec_', keep_previous='0')
        assert len(Webhook.objects.get().secrets()) == 1

    def test_a_page_warns_that_a_rotation_ends_a_previous_secret(self, webhook, admin_pages):
        pages = [f'{PAGES}{webhook.pk}/rotate-secret/', f'{PAGES}{webhook.pk}/edit/', page_of(webhook)]

        def warning() -> list[str]:
            return [
                page
                for page in pages
                if 'the previous one stops being valid at once' in admin_pages.get(page).content.decode()
            ]

        assert warning() == []
        self.rotate(admin_pages, webhook, prefix='whsec_', keep_previous='24')
        assert warning() == pages
        until = moment(Webhook.objects.get().previous_secret_expires)
        assert all(until in admin_pages.get(page).content.decode() for page in pages)
        Webhook.objects.update(previous_secret_expires=timezone.now())
        assert warning() == []

    def test_the_public_key_of_a_pair_stays_on_the_page(self, webhook, admin_pages):
        self.rotate(admin_pages, webhook, prefix='whsk_', keep_previous='0')
        secret, page = Webhook.objects.get().secret.reveal(), admin_pages.get(webhook.get_absolute_url())
        assert secret.startswith('whsk_')
        assert signing.public_key(secret) in page.content.decode()
        assert secret not in page.content.decode()

    def test_until_it_is_shown_it_is_stored_encrypted(self, webhook, admin_pages):
        admin_pages.post(f'{PAGES}{webhook.pk}/rotate-secret/', {'prefix': 'whsec_', 'keep_previous': '0'})
        new = Webhook.objects.get().secret.reveal()
        assert new not in str(dict(admin_pages.session))
        assert new in admin_pages.get(webhook.get_absolute_url()).content.decode()

    def test_the_change_log_has_it(self, webhook, admin_pages):
        self.rotate(admin_pages, webhook, prefix='whsec_', keep_previous='24')
        change = ObjectChange.objects.filter(changed_object_id=webhook.pk).latest('time')
        before, after = change.prechange_data['stamps'], change.postchange_data['stamps']
        assert before['secret'] != after['secret'] != ''
        assert before['additional_headers'] == after['additional_headers'] == ''
        assert Webhook.objects.get().secret.reveal() not in str(change.postchange_data)

    @pytest.mark.parametrize(('action', 'statuses'), [('view', (403, 404)), ('change', (302,))])
    def test_it_needs_permission_to_change(self, webhook, clerk_user, client, grant, action, statuses):
        client.force_login(clerk_user)
        grant(Webhook, 'view')
        grant(Webhook, action)
        page = client.get(webhook.get_absolute_url()).content.decode()
        assert (f'{PAGES}{webhook.pk}/rotate-secret/' in page) is (action == 'change')
        answer = client.post(f'{PAGES}{webhook.pk}/rotate-secret/', {'prefix': 'whsec_', 'keep_previous': '0'})
        assert answer.status_code in statuses

    def add(self, admin_pages, **more: str):
        site = ContentType.objects.get_for_model(Site).pk
        fields = {
            'name': 'New', 'object_types_1': [site], 'type_create': 'on', 'payload_url': 'https://a.example/',
            'http_method': 'POST', 'http_content_type': 'application/json', 'payload_format': 'default',
            'max_attempts': 8, 'concurrency': 16, 'generate_secret': 'on', **more,
        }  # fmt: skip
        page = admin_pages.post(f'{PAGES}add/', fields, follow=True)
        assert page.redirect_chain, page.context['form'].errors
        return page

    def test_a_secret_is_generated_with_the_webhook(self, committed, admin_pages):
        page = self.add(admin_pages)
        assert Webhook.objects.get().secret.reveal() in page.content.decode()
        assert len(page.context['messages']) == 1

    def test_a_user_who_adds_another_webhook_next_reads_where_the_secret_is_shown(self, committed, admin_pages):
        told = self.add(admin_pages, _addanother='').context['messages']
        assert 'The secret of “New” is shown once, when you open its page.' in map(str, told)
        webhook = Webhook.objects.get()
        assert webhook.secret.reveal() in admin_pages.get(webhook.get_absolute_url()).content.decode()

    def test_another_secret_leaves_the_old_one_a_day(self, webhook, admin_pages):
        address, old = f'{PAGES}{webhook.pk}/edit/', webhook.secret.reveal()
        form = admin_pages.get(address).context['form']
        entered = {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}
        entered['object_types_1'] = entered.pop('object_types')
        answer = admin_pages.post(address, entered | {'secret': 'another'})
        assert answer.status_code == 302, answer.context['form'].errors
        assert Webhook.objects.get().secrets() == ['another', old]
