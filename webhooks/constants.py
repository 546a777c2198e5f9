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

# The first, and one after each wait of engine/deliver/backoff.py.
DEFAULT_MAX_ATTEMPTS = 8

# Seconds: --burst workers run NetBox's jobs too.
JOB_SECONDS = 30.0

# Seconds.
MAX_TIMEOUT_SECONDS = 3600

# Characters, with its templates.
MAX_URL_CHARS = 500

MAX_CHANGED_KEYS = 50
MAX_EXPAND_KEYS, MAX_EXPAND_LEVELS = 20, 3

# Characters.
MAX_SECRET_CHARS = 1000

# Characters, also of all headers with their templates, and of conditions as JSON.
MAX_TEMPLATE_CHARS = 64 * 1024

# Characters that are sent, with values in place of templates. Web servers take about as many.
MAX_HEADER_VALUE_CHARS, MAX_HEADERS_CHARS, MAX_SENT_URL_CHARS = 8 * 1024, 32 * 1024, 8 * 1024

# On 4,094 VLANs, each takes half a millisecond an event.
MAX_CONDITIONS = 100

# Characters.
MAX_QUERY_CHARS = 2000

# RFC 9110, 15.5.11: do not call again.
STATUS_GONE = 410

# Bytes read and characters kept.
MAX_RESPONSE_READ_BYTES = 64 * 1024
MAX_RESPONSE_KEPT_CHARS = 4 * 1024

# They frame the request or carry its signature.
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

# NetBox believes these; its settings may name more.
FORWARDED_HEADERS = frozenset({'forwarded', 'x-real-ip'})
FORWARDED_PREFIX = 'x-forwarded-'

# Seconds.
LATENCY_BUCKET_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

STATUS_PAGE_JOBS = 1000

# No receiver is here. Single addresses are metadata services.
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

# {driver: class}. Packages add others as entry points of this group.
BROKER_DRIVERS = {
    'amqp': 'webhooks.brokers.amqp:Amqp',
    'kafka': 'webhooks.brokers.kafka:Kafka',
    'mqtt': 'webhooks.brokers.mqtt:Mqtt',
    'nats': 'webhooks.brokers.nats:Nats',
    'redis': 'webhooks.brokers.redis:Redis',
}
DRIVER_ENTRY_POINTS = 'netbox_webhooks.drivers'
