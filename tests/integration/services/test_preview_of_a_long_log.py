import pytest
from dcim.models import Site
from support.builders import NOWHERE, site, subscribe
from support.log import event
from support.tables import copy_row, rows_read

from webhooks.engine import sql
from webhooks.models import Event
from webhooks.services import preview_sources

pytestmark = pytest.mark.usefixtures('committed')


def test_it_is_not_read_to_its_start(api_client, monkeypatch):
    monkeypatch.setattr(preview_sources, 'MAX_EVENTS_SEARCHED', 500)
    places = [site(name=name) for name in ('Bern', 'Genf')]
    webhook = subscribe(NOWHERE, Site, body_template='{{ snapshots.postchange.name }}', include_snapshots=True)
    first = event(places[0], snapshots={'prechange': None, 'postchange': {'name': 'long ago'}})
    event(places[1])
    copy_row(Event, times=5000)
    Event.objects.exclude(pk=first.pk).update(snapshots=None)
    sql.execute('ANALYZE webhooks_event')
    before = rows_read(Event)
    answer = api_client.get(f'/api/plugins/webhooks/webhooks/{webhook.pk}/preview/')
    assert answer.data['body'] == 'Genf'
    assert rows_read(Event) - before < 2000
