"""The REST API, below /api/plugins/webhooks/.

views: the endpoints of webhooks, credentials, events and deliveries.
endpoints: addresses and permissions of the endpoints of actions.
failures: the endpoint of failed deliveries by cause.
feed: the endpoint of a feed.
lists: the endpoints of lists.
apply: the endpoint that applies a document.
schemas: the endpoints that describe bodies.
serializers: webhooks, credentials and the log as JSON.
action_serializers: requests and answers of actions, such as a redelivery.
serializer_fields: object types, and masked texts.
refusals: errors as HTTP answers.
urls: the routes.

The docstrings of serializers and actions are descriptions in NetBox's OpenAPI, so people who write programs read them.
A serializer's name without its end is that of the component, so it begins with Webhook.
A viewset with a route must not have a docstring: NetBox would show it for each action, in place of the action's own.
"""
