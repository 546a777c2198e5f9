import json
import logging
from typing import Any

import pytest
from core.models import Job, ManagedFile
from django.db.models import Model
from django.urls import NoReverseMatch
from extras.models import Script, ScriptModule
from support.objects.anything import make_anything
from support.rest import api_url, get

from webhooks import rendering
from webhooks.object_types import every_model
from webhooks.outbox import snapshots


def take(instance: Model) -> dict[str, Any]:
    return json.loads(snapshots.take(type(instance), [instance.pk])[instance.pk])


def has_page(instance: Model) -> bool:
    """The REST API may show an object with another serializer."""
    try:
        return bool(api_url(instance)) and not isinstance(instance, Script)
    except NoReverseMatch:
        return False


@pytest.mark.parametrize('model', every_model(), ids=lambda model: model._meta.label_lower)
def test_an_object_is_shown_as_the_api_shows_it_and_as_the_change_log_would(api_client, model: type[Model]):
    instance = make_anything(model)
    (shown,) = rendering.render(model, [take(instance)])
    # Dashboards are shown without an id.
    assert shown.data.get('id', instance.pk) == instance.pk
    if has_page(instance):
        assert shown.data == get(api_client, instance)
    (logged,) = rendering.change_log(model, [take(instance)])
    assert logged
    if not hasattr(instance, 'to_objectchange'):
        # NetBox logs no change of the model, and snapshots must not add its passwords.
        assert logged.keys() <= shown.data.keys()


def test_a_job_with_a_log_is_shown_as_the_api_shows_it(api_client):
    job = make_anything(Job)
    job.log(logging.LogRecord('jobs', logging.INFO, __file__, 1, 'It runs', (), None))
    job.save()
    (shown,) = rendering.render(Job, [take(job)])
    assert shown.data == get(api_client, job)
    assert shown.data['log_entries'][0]['message'] == 'It runs'
    (logged,) = rendering.change_log(Job, [take(job)])
    assert [entry['message'] for entry in json.loads(logged['log_entries'])] == ['It runs']


def test_a_model_that_is_recorded_as_one_without_a_serializer_is_left_out():
    """Script modules are recorded as managed files, which have no serializer."""
    assert ScriptModule._meta.concrete_model is ManagedFile
    assert Script in every_model()
    assert not {ScriptModule, ManagedFile} & {*every_model()}
