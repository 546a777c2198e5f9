"""Changes the conditions of a webhook with pynetbox:  pynetbox_conditions.py URL TOKEN WEBHOOK '{"attr": …}'

pynetbox takes a JSON field for a related object: `webhook.conditions` is a record, and a change in it is not sent.
Read the field from `dict(webhook)`, and write it whole. The same holds for `success_conditions`, `fields`, `omit` and
`filters`.
"""

import json
import sys

import pynetbox

url, token, name, conditions = sys.argv[1:]
webhook = pynetbox.api(url, token=token).plugins.webhooks.webhooks.get(name=name)
print('before:', json.dumps(dict(webhook)['conditions']))
webhook.update({'conditions': json.loads(conditions)})
print('after:', json.dumps(dict(webhook)['conditions']))
