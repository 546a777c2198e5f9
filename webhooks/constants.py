"""Figures and names that are part of the contract. What an operator may change is in conf.py."""

# The models of the seed, in the order in which NetBox's menu has their apps.
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

# The first, and one after each wait of engine/backoff.py.
DEFAULT_MAX_ATTEMPTS = 8

# Seconds after which the queue's other jobs are to have their turn. A worker with --burst does NetBox's as well.
JOB_TIME = 30.0

# Seconds that a webhook may ask for at most, for one request.
MAX_TIMEOUT = 3600

# Characters of a webhook's URL, templates and all.
MAX_URL = 500

# Keys of `expand`, and how far one leads: device.site.region.
MAX_EXPAND_KEYS, MAX_EXPAND_LEVELS = 20, 3

# Of a secret. Each request is signed with it.
MAX_SECRET = 1000

# Characters of any other template of a webhook, of its headers, and of its conditions as JSON.
MAX_TEMPLATE = 64 * 1024

# Of a webhook. Over a trunk of 4,094 VLANs each takes half a millisecond, for every event.
MAX_CONDITIONS = 100

# Of the filter of a backfill.
MAX_QUERY = 2000

# The answer of an endpoint that is not to be called again (RFC 9110, 15.5.11).
GONE = 410

# A claim outlives the request's own timeout by this much, in seconds.
LEASE_MARGIN = 30

# Of a response, bytes read and characters kept.
MAX_RESPONSE_READ = 64 * 1024
MAX_RESPONSE_KEPT = 4 * 1024

# Headers that additional_headers cannot set: they frame the request or carry its signature.
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

# Nor what proxies tell of a client, and NetBox believes. To these come the headers that NetBox's own settings name.
FORWARDED_HEADERS = frozenset({'forwarded', 'x-real-ip'})
FORWARDED_PREFIX = 'x-forwarded-'

# Upper bounds of the latency histogram, in seconds.
LATENCY_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Newest failed deliveries that the status page lists.
STATUS_PAGE_LIMIT = 1000

# Where no receiver is. An address that stands alone is a metadata service; the page is its provider's.
DEFAULT_BLOCKED_NETWORKS = (
    '0.0.0.0/8',
    '169.254.0.0/16',
    '224.0.0.0/4',
    '255.255.255.255/32',
    '100.100.100.200/32',  # Alibaba Cloud
    '168.63.129.16/32',  # Azure
    '192.0.0.192/32',  # Oracle Cloud at Customer: occ-get-started, "Retrieve Predefined Instance Metadata"
    '::/128',
    'fe80::/10',
    'ff00::/8',
    'fd00:ec2::254/128',  # AWS: EC2 User Guide, "Retrieve instance metadata"
    'fd00:ec2::23/128',  # AWS: EKS User Guide, "Set up the Amazon EKS Pod Identity Agent"
    'fd20:ce::254/128',  # Google Cloud
    'fd00:42::42/128',  # Scaleway: Instance API, "User data"
    'fd00:a9fe:a9fe::1/128',  # Akamai (Linode): "Use the Metadata service API"
    'fd00:c1::a9fe:a9fe/128',  # Oracle Cloud: known from scripts, on no page of the provider that was found
)
