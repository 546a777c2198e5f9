"""The CloudEvents authors' own parser reads our events."""

import json
import uuid

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.v1.event import CloudEvent
from dcim.models import Site
from django.db import connection
from support.builders import site, subscribe
from support.builtin import request_by
from support.engine import work
from support.settings import change_settings

from devstack.receiver import Received, Receiver
from webhooks.models import Event

pytestmark = pytest.mark.usefixtures('committed')


def received(receiver: Receiver, count: int = 1) -> list[Received]:
    work()
    return receiver.wait_for(count)


class TestCloudEvents:
    def event(self, request: Received) -> CloudEvent:
        return from_http_event(HTTPMessage(dict(request.headers), request.body))

    def test_a_change_is_a_valid_cloudevent(self, receiver: Receiver, netbox_user, settings):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents')
        with request_by(netbox_user):
            place = site(name='Genève')
        (request,) = received(receiver)
        recorded = Event.objects.get()
        assert request.header('Content-Type') == 'application/cloudevents+json'
        event = self.event(request)
        assert isinstance(event, CloudEvent)
        assert event.get_specversion() == '1.0'
        assert event.get_id() == str(recorded.uuid)
        assert event.get_source() == f'urn:netbox:{settings.DEPLOYMENT_ID}'
        assert event.get_type() == 'netbox.dcim.site.created'
        assert event.get_subject() == str(place.pk)
        assert event.get_time() == recorded.timestamp
        assert event.get_datacontenttype() == 'application/json'
        assert event.get_data()['name'] == 'Genève'
        assert int(event.get_extension('sequence')) == recorded.sequence
        assert event.get_extension('partitionkey') == f'dcim.site:{place.pk}'
        assert event.get_extension('username') == 'admin'
        assert uuid.UUID(event.get_extension('requestid')) == recorded.request_id

    def test_sequences_sort_as_text(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents')
        place = site()
        with connection.cursor() as cursor:
            cursor.execute("SELECT setval('webhooks_event_sequence', 10000000000000000)")
        place.save()
        earlier, later = (self.event(one).get_extension('sequence') for one in received(receiver, 2))
        assert len(earlier) == len(later) == 19
        assert earlier < later
        assert earlier.lstrip('0') > later.lstrip('0')  # unpadded ones do not

    def test_the_source_is_the_same_for_every_host_and_may_be_set(self, receiver: Receiver, settings, monkeypatch):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents')
        for host in ('worker-1', 'worker-2'):
            settings.HOSTNAME = host
            site()
            work()
        change_settings(monkeypatch, cloudevents_source='https://netbox.example.com/')
        site()
        sources = [self.event(one).get_source() for one in received(receiver, 3)]
        assert sources == [f'urn:netbox:{settings.DEPLOYMENT_ID}'] * 2 + ['https://netbox.example.com/']

    def test_outside_a_request_what_is_not_known_is_left_out(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents')
        site().delete()
        created, deleted = received(receiver, 2)
        assert self.event(created).get_type() == 'netbox.dcim.site.created'
        assert self.event(deleted).get_type() == 'netbox.dcim.site.deleted'
        assert {'username', 'requestid', 'test', 'traceparent', 'tracestate'}.isdisjoint(created.json())

    def test_a_message_of_several_lines_is_a_text_without_control_characters(self, receiver: Receiver, api_client):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents')
        sent = {'name': 'Bern', 'slug': 'bern', 'comments': 'a\nb'}
        sent['changelog_message'] = 'first\nsecond\x85\ufdd0 Zürich'
        assert api_client.post('/api/dcim/sites/', sent, format='json').status_code == 201
        event = self.event(received(receiver)[0])
        assert event.get_extension('changelogmessage') == 'first second   Zürich'
        assert event.get_data()['comments'] == 'a\nb'

    def test_snapshots_are_in_its_data(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents', include_snapshots=True)
        place = site()
        data = self.event(received(receiver)[0]).get_data()
        assert data['object']['id'] == place.pk
        assert data['snapshots']['prechange'] is None
        assert data['snapshots']['postchange']['name'] == place.name

    @staticmethod
    def message_of(event: dict) -> HTTPMessage:
        return HTTPMessage({'content-type': 'application/cloudevents+json'}, json.dumps(event).encode())

    def test_a_content_type_of_its_own_is_kept(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site, payload_format='cloudevents', http_content_type='application/json; a=b')
        site()
        assert received(receiver)[0].header('Content-Type') == 'application/json; a=b'
