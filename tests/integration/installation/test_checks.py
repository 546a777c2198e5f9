import pytest
from django.core import checks
from django.http import HttpRequest, HttpResponse
from django.urls import path
from support.settings import change_settings

from webhooks import conf
from webhooks.django_admin import install
from webhooks.worker import WebhooksWorker

pytestmark = pytest.mark.usefixtures('committed')


class Inheriting(WebhooksWorker):
    """A company may have its own worker class."""


def another_admin(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


# A URLconf with another page at the admin's address.
urlpatterns = [path('admin/', another_admin)]


def warnings() -> dict[str, str]:
    """Return {id: message} of our checks."""
    return {found.id: found.msg for found in checks.run_checks(tags=['webhooks'])}


def use_workers(settings, name: str) -> None:
    settings.RQ = {**settings.RQ, 'WORKER_CLASS': name}


def test_it_is_a_warning_that_no_worker_serves_the_queue(rqworker):
    assert warnings() == {'webhooks.W001': "Webhooks are enabled, but no worker serves the queue 'low'."}
    rqworker('low')
    assert warnings() == {}


@pytest.mark.parametrize(('queue', 'command'), [('low', 'rqworker'), ('mine', 'rqworker mine')])
def test_the_hint_starts_a_worker_that_serves_the_queue(monkeypatch, settings, queue, command):
    settings.RQ_QUEUES = {**settings.RQ_QUEUES, queue: settings.RQ_QUEUES['low']}
    change_settings(monkeypatch, queue=queue)
    (found,) = checks.run_checks(tags=['webhooks'])
    assert found.hint.startswith(f'Start one: manage.py {command}. ')


def test_it_is_a_warning_that_workers_have_no_timer(settings):
    use_workers(settings, conf.NETBOX_WORKER)
    assert warnings()['webhooks.W003'].startswith(f"RQ['WORKER_CLASS'] is {conf.NETBOX_WORKER!r}, which does not")
    use_workers(settings, f'{__name__}.{Inheriting.__name__}')
    assert 'webhooks.W003' not in warnings()


def test_it_is_a_warning_that_the_admin_hides_what_was_there(monkeypatch, rqworker):
    rqworker('low')
    assert warnings() == {}
    monkeypatch.setattr(install, 'previous_urlconf', __name__)
    hides = f"The plugin's admin at /admin/ hides another page at this address: {__name__}."
    assert warnings() == {'webhooks.W005': hides}
    change_settings(monkeypatch, admin=False)
    assert warnings() == {}


def test_switched_off_nothing_is_warned_of(monkeypatch, settings):
    use_workers(settings, conf.NETBOX_WORKER)
    assert warnings().keys() == {'webhooks.W001', 'webhooks.W003'}
    change_settings(monkeypatch, enabled=False)
    assert warnings() == {}
