"""Values that several rooms share: defaults, bounds and names."""

# The models whose changes may be sent without any setting.
DEFAULT_MODELS = (
    'dcim.site',
    'dcim.rack',
    'dcim.rackgroup',
    'dcim.device',
    'dcim.interface',
    'ipam.vrf',
    'ipam.ipaddress',
    'ipam.prefix',
    'ipam.aggregate',
    'ipam.vlan',
    'ipam.vlangroup',
    'ipam.service',
    'tenancy.tenant',
    'tenancy.tenantgroup',
    'circuits.circuit',
    'circuits.provider',
    'virtualization.cluster',
    'virtualization.clustergroup',
    'virtualization.virtualmachine',
)

# Attempts: the first, and one after each wait of engine/deliver/backoff.py.
DEFAULT_MAX_ATTEMPTS = 8
MAX_ATTEMPTS = 100

# One of our jobs works for this time, then another goes on. A worker with --burst has NetBox's jobs to do too.
JOB_SECONDS = 30.0

# The longest timeout of a webhook.
MAX_TIMEOUT_SECONDS = 3600

# The longest `quiet` and `quiet_max` of a webhook. Without the second, it is this many times the first.
MAX_QUIET_SECONDS = 3600
MAX_QUIET_MAX_SECONDS = 24 * 3600
QUIET_MAX_FACTOR = 10

# The URL of a webhook, with its templates.
MAX_URL_CHARS = 500

# Keys in a webhook's `only_if_changed`.
MAX_CHANGED_KEYS = 50
# Keys for each object type in a webhook's `fields` or `omit`.
MAX_SELECTED_KEYS = 200
# Keys in a webhook's `expand`, and the names in one, such as 3 in "device.site.region".
MAX_EXPAND_KEYS = 20
MAX_EXPAND_LEVELS = 3

# The secret of a webhook.
MAX_SIGNING_SECRET_CHARS = 1000

# A template; also all headers of a webhook with their templates, and its conditions as JSON.
MAX_TEMPLATE_CHARS = 64 * 1024

# A renderer's time for one template, and for all templates of a request together.
TEMPLATE_SECONDS = 2.0

# As sent, with values in place of templates. Web servers take about as many characters, and refuse more.
MAX_HEADER_VALUE_CHARS = 8 * 1024
MAX_HEADERS_CHARS = 32 * 1024
MAX_SENT_URL_CHARS = 8 * 1024

# Conditions of a webhook. On an object with 4,094 VLANs, each takes half a millisecond for each event.
MAX_CONDITIONS = 100

# The filter of a backfill, as a query string.
MAX_QUERY_CHARS = 2000

# HTTP status 410 (RFC 9110, 15.5.11): the endpoint is gone for good. It disables the webhook.
STATUS_GONE = 410

# At most this much of a response is read, and this much is kept in the log.
MAX_RESPONSE_READ_BYTES = 64 * 1024
MAX_RESPONSE_KEPT_CHARS = 4 * 1024

# Headers that a webhook cannot set: they frame the request or carry its signature.
RESERVED_HEADERS = frozenset(
    {
        'host',
        'content-length',
        'transfer-encoding',
        'connection',
        'webhook-id',
        'webhook-timestamp',
        'webhook-signature',
        'x-hook-signature',
    }
)

# Headers that say where a request came from, and that it believes. Its settings may name more.
FORWARDED_HEADERS = frozenset({'forwarded', 'x-real-ip'})
FORWARDED_PREFIX = 'x-forwarded-'

# The upper bounds of the histogram in Health.latency. It has one more count, for longer attempts.
LATENCY_BUCKET_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# RQ's status page lists at most this many of the newest failed deliveries.
STATUS_PAGE_JOBS = 1000

# No receiver is here. Single addresses are metadata services of clouds, which give credentials to anybody on the host.
DEFAULT_BLOCKED_NETWORKS = (
    '0.0.0.0/8',
    '169.254.0.0/16',
    '224.0.0.0/4',
    '255.255.255.255/32',
    '100.100.100.200/32',  # Alibaba Cloud
    '168.63.129.16/32',  # Azure
    '192.0.0.192/32',  # Oracle Cloud at Customer: "Retrieve Predefined Instance Metadata"
    '::/128',
    'fe80::/10',
    'ff00::/8',
    'fd00:ec2::254/128',  # AWS: "Retrieve instance metadata"
    'fd00:ec2::23/128',  # AWS: "Set up the Amazon EKS Pod Identity Agent"
    'fd20:ce::254/128',  # Google Cloud
    'fd00:42::42/128',  # Scaleway: "User data"
    'fd00:a9fe:a9fe::1/128',  # Akamai: "Use the Metadata service API"
    'fd00:c1::a9fe:a9fe/128',  # Oracle Cloud, from scripts
)

# {driver: class}. Packages add others as entry points of the group DRIVER_ENTRY_POINTS.
BROKER_DRIVERS = {
    'amqp': 'webhooks.brokers.amqp:Amqp',
    'kafka': 'webhooks.brokers.kafka:Kafka',
    'mqtt': 'webhooks.brokers.mqtt:Mqtt',
    'nats': 'webhooks.brokers.nats:Nats',
    'redis': 'webhooks.brokers.redis:Redis',
}
DRIVER_ENTRY_POINTS = 'netbox_webhooks.drivers'
