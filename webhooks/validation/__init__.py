"""Checks a webhook's definition before it is saved or sent. Knows nothing of the database.

definition: what is checked.
url, body, headers, conditions, keys, lists, secret, credential, times, tls: check the fields that they are named after.
broker: checks webhooks that send to a broker.
moved: whether a webhook moves to another host.
templates: tries a template.
"""

from ..templating import renderer
from . import body, broker, conditions, credential, headers, keys, lists, secret, times, tls, url
from .definition import Definition, errors_of

# In this order. A field shows only its first error.
CHECKS = (
    conditions.check_kinds,
    conditions.check_components,
    conditions.check_config_contexts,
    url.check,
    url.check_feed,
    broker.check,
    body.check_content_type,
    body.check_format,
    body.check_change_set,
    lists.check,
    headers.check,
    body.check_body_template,
    body.check_data,
    conditions.check_conditions,
    conditions.check_success_conditions,
    keys.check_expand,
    keys.check_selection,
    keys.check_thin,
    keys.check_only_if_changed,
    secret.check,
    credential.check,
    times.check_timeout,
    times.check_quiet,
    tls.check_ca_file,
    tls.check_client_certificate,
)


def errors(definition: Definition) -> dict[str, str]:
    """Check a webhook's definition, and return {field: reason}, empty if all is well.

    `Webhook.clean` and previews call it. Templates and patterns are tried in a process of their own, one for all
    checks.
    """
    with renderer.shared():
        return errors_of(definition, CHECKS)
