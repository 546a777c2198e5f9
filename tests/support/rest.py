"""REST API objects, without the host in their URLs."""

import json
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model, ProtectedError, RestrictedError
from django.db.models.deletion import Collector
from django.urls import reverse
from rest_framework.test import APIClient
from utilities.views import get_viewname

HOST = 'http://testserver'


def api_url(instance: Model) -> str:
    return reverse(get_viewname(instance, 'detail', rest_api=True), args=[instance.pk])


def get(client: APIClient, instance: Model) -> dict[str, Any]:
    answer = client.get(api_url(instance))
    assert answer.status_code == 200
    return without_host(json.loads(answer.content))


def without_host(shown: Any) -> Any:
    if isinstance(shown, dict):
        return {key: without_host(value) for key, value in shown.items()}
    if isinstance(shown, list):
        return [without_host(value) for value in shown]
    return shown.removeprefix(HOST) if isinstance(shown, str) else shown


def delete(client: APIClient, instance: Model) -> None:
    """First delete everything that protects it."""
    free(client, instance)
    assert client.delete(api_url(instance)).status_code == 204


def free(client: APIClient, instance: Model) -> None:
    try:
        Collector(using=DEFAULT_DB_ALIAS).collect([instance])
    except (ProtectedError, RestrictedError) as error:
        for other in error.args[1]:
            delete(client, other)
        free(client, instance)
