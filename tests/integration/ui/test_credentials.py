from datetime import date
from typing import Any

import pytest
from core.models import ObjectChange
from django.contrib.messages import get_messages
from extras.models import Tag

from webhooks.models import Credential

pytestmark = pytest.mark.usefixtures('committed')

PAGES = '/plugins/webhooks/credentials/'
TOKEN = 'tok3n-of-awx'


def credential(name: str = 'AWX', **fields: Any) -> Credential:
    made = Credential(**{'name': name, 'type': 'bearer', 'secret': TOKEN, 'hosts': ['awx.example.com'], **fields})
    made.full_clean()
    made.save()
    return made


def change_log() -> str:
    return ''.join(f'{change.prechange_data}{change.postchange_data}' for change in ObjectChange.objects.all())


class TestBulkEdit:
    def edit(self, pages: Any, *credentials: Credential, **fields: Any) -> Any:
        return pages.post(f'{PAGES}edit/', {'pk': [one.pk for one in credentials], '_apply': '1', **fields})

    def test_all_get_the_same(self, admin_pages):
        tag = Tag.objects.create(name='Ours', slug='ours')
        one, other = credential(), credential('Another', description='x')
        answer = self.edit(
            admin_pages, one, other, secret='an0ther', hosts='b.example.com, c.example.com', add_tags=[tag.pk],
            _nullify=['description'],
        )  # fmt: skip
        assert answer.status_code == 302, answer.content.decode()
        for made in Credential.objects.all():
            assert (made.secret.reveal(), made.description) == ('an0ther', '')
            assert made.hosts == ['https://b.example.com', 'https://c.example.com']
            assert list(made.tags.all()) == [tag]
        assert 'stamps' in change_log()
        assert not [text for text in (TOKEN, 'an0ther') if text in change_log()]

    def test_a_blank_secret_stays(self, admin_pages):
        made = credential()
        assert self.edit(admin_pages, made, description='x', secret='').status_code == 302
        made = Credential.objects.get()
        assert (made.description, made.secret.reveal()) == ('x', TOKEN)

    def test_an_end_is_set_and_removed(self, admin_pages):
        made = credential()
        assert self.edit(admin_pages, made, valid_until='2027-01-31').status_code == 302
        assert Credential.objects.get().valid_until == date(2027, 1, 31)
        assert self.edit(admin_pages, made, _nullify=['valid_until']).status_code == 302
        assert Credential.objects.get().valid_until is None

    def test_a_new_host_needs_the_secret(self, admin_pages):
        made = credential()
        answer = self.edit(admin_pages, made, hosts='evil.example.com')
        assert 'Enter the secret again' in answer.content.decode()
        assert TOKEN not in answer.content.decode()
        assert Credential.objects.get().hosts == ['https://awx.example.com']

    def test_no_job_keeps_the_secret(self, admin_pages):
        made = credential()
        self.edit(admin_pages, made, secret='an0ther', background_job='on')
        assert Credential.objects.get().secret.reveal() == 'an0ther'

    def test_many_credentials_are_renamed_at_once(self, admin_pages):
        made = credential()
        fields = {'pk': [made.pk], '_apply': '1', 'find': 'AWX', 'replace': 'Tower'}
        assert admin_pages.post(f'{PAGES}rename/', fields).status_code == 302
        assert Credential.objects.get().name == 'Tower'
        fields = {'pk': [made.pk], '_apply': '1', 'find': 'Tower', 'replace': 'x' * 151}
        assert admin_pages.post(f'{PAGES}rename/', fields).status_code == 302


class TestImport:
    def post(self, pages: Any, data: str, format_: str = 'csv', **fields: Any) -> Any:
        return pages.post(f'{PAGES}import/', {'data': data, 'format': format_, 'csv_delimiter': ',', **fields})

    def test_csv_makes_a_credential(self, admin_pages):
        data = 'name,type,hosts,username,secret\nAWX,basic,"awx.example.com,b.example.com:8443",netbox,s3 cret'
        answer = self.post(admin_pages, data)
        assert answer.status_code == 302, answer.content.decode()
        made = Credential.objects.get()
        assert (made.type, made.username, made.secret.reveal()) == ('basic', 'netbox', 's3 cret')
        assert made.hosts == ['https://awx.example.com', 'https://b.example.com:8443']
        assert 's3 cret' not in change_log()

    def test_yaml_makes_a_credential(self, admin_pages):
        Tag.objects.create(name='Ours', slug='ours')
        data = """
- name: EDA
  type: oauth2
  hosts: [eda.example.com]
  username: netbox
  secret: cl1ent
  valid_until: 2027-01-31
  token_url: https://login.example.com/token
  scope: hooks
  tags: [ours]
"""
        assert self.post(admin_pages, data, 'yaml').status_code == 302
        made = Credential.objects.get()
        assert made.token_url == 'https://login.example.com/token'
        assert (made.scope, made.secret.reveal()) == ('hooks', 'cl1ent')
        assert made.valid_until == date(2027, 1, 31)
        assert made.tags.count() == 1

    def test_an_import_by_id_keeps_the_other_fields(self, admin_pages):
        made = credential()
        assert self.post(admin_pages, f'id,description\n{made.pk},changed').status_code == 302
        made = Credential.objects.get()
        assert (made.description, made.secret.reveal()) == ('changed', TOKEN)

    @pytest.mark.parametrize(
        ('data', 'reason'),
        [
            ('name,type,hosts,secret\nAWX,nonsense,x,s3cret-val', 'type'),
            ('name,type,hosts,secret\nAWX,bearer,*,s3cret-val', 'hosts'),
            ('name,type,hosts,secret\nAWX,basic,x,s3cret-val', 'username'),
            ('name,type,hosts,token\nAWX,bearer,x,s3cret-val', 'Unrecognized header: token'),
            ('name,type,hosts\nAWX,bearer,x', 'secret'),
        ],
    )
    def test_a_mistake_is_named_and_says_no_secret(self, admin_pages, data: str, reason: str):
        answer = self.post(admin_pages, data)
        said = [str(error) for error in answer.context['form'].non_field_errors()]
        assert any(reason in error for error in said), said
        assert not [error for error in said if 's3cret-val' in error]
        assert not Credential.objects.exists()

    @pytest.mark.parametrize('columns', [('id', 'hosts'), ('id', 'hosts', 'secret')])
    def test_a_new_host_needs_the_secret(self, admin_pages, columns: tuple[str, ...]):
        made = credential()
        values = {'id': str(made.pk), 'hosts': 'evil.example.com', 'secret': ''}
        lines = ','.join(columns) + '\n' + ','.join(values[name] for name in columns)
        answer = self.post(admin_pages, lines)
        assert answer.status_code == 200
        assert 'Enter the secret again' in str(answer.context['form'].non_field_errors())
        assert Credential.objects.get().hosts == ['https://awx.example.com']

    def test_no_job_keeps_the_secret(self, admin_pages):
        data = 'name,type,hosts,secret\nAWX,bearer,x,s3cret-val'
        answer = self.post(admin_pages, data, background_job='on')
        assert 'not in the background' in str([str(one) for one in get_messages(answer.wsgi_request)])
        assert Credential.objects.get().secret.reveal() == 's3cret-val'

    def test_each_page_needs_its_permission(self, clerk_pages, grant):
        data = 'name,type,hosts,secret\nAWX,bearer,x,s3cret-val'
        assert self.post(clerk_pages, data).status_code == 403
        assert clerk_pages.post(f'{PAGES}edit/', {'pk': [1], '_apply': '1'}).status_code == 403
        grant(Credential, 'add', name='Only this')
        self.post(clerk_pages, data)
        assert not Credential.objects.exists()
        grant(Credential, 'add', name='AWX')
        assert self.post(clerk_pages, data).status_code == 302
        made = Credential.objects.get()
        assert 'change' in str(self.post(clerk_pages, f'id,description\n{made.pk},x').context['form'].errors)


class TestList:
    @pytest.mark.parametrize(
        ('query', 'found'),
        [
            ('type=basic', ['Login']),
            ('host=AWX.example.com', ['AWX']),
            ('host=https://login.example.com:8443/', ['Login']),
            ('host=nowhere.example.com', []),
            ('username__ic=net', ['Login']),
            ('tag=ours', ['AWX']),
            ('q=log', ['Login']),
            ('valid_until__lte=2027-01-31', ['Login']),
            ('valid_until__lte=2027-01-30', []),
        ],
    )
    def test_the_list_and_the_api_filter_credentials_alike(self, admin_pages, api_client, query: str, found: list[str]):
        credential().tags.add(Tag.objects.create(name='Ours', slug='ours'))
        credential('Login', type='basic', username='netbox', hosts=['login.example.com:8443'], valid_until='2027-01-31')
        assert [one['name'] for one in api_client.get(f'/api{PAGES}?{query}').json()['results']] == found
        rows = admin_pages.get(f'{PAGES}?{query}').context['table'].rows
        assert [row.record.name for row in rows] == found

    def test_an_export_holds_no_secret(self, admin_pages):
        credential()
        for page in ('?export', '?export=table'):
            text = admin_pages.get(f'{PAGES}{page}').content.decode()
            assert 'awx.example.com' in text
            assert TOKEN not in text

    def test_the_list_has_its_buttons_and_a_copy_has_no_secret(self, admin_pages):
        made = credential()
        page = admin_pages.get(PAGES).content.decode()
        assert all(f'{PAGES}{name}/' in page for name in ('add', 'import', 'edit', 'rename', 'delete'))
        copy = admin_pages.get(f'{PAGES}add/', {**made.clone()})
        assert TOKEN not in copy.content.decode()
        assert copy.context['form']['type'].value() == 'bearer'
        assert 'awx.example.com' in copy.content.decode()


@pytest.mark.parametrize('address', [f'{PAGES}add/', '/admin/webhooks/credential/add/'])
def test_an_entered_secret_is_asked_for_again_where_another_field_is_wrong(admin_pages, address):
    answer = admin_pages.post(address, {'name': '', 'type': 'bearer', 'hosts': 'a.example', 'secret': TOKEN})
    form = answer.context['adminform'].form if 'adminform' in answer.context else answer.context['form']
    assert sorted(form.errors) == ['name', 'secret']
    assert TOKEN not in answer.content.decode()
