"""The version of the plugin, and where to find the versions of NetBox that it works with."""

VERSION = '2.0.0'
# A URL, because an installed wheel does not have the file.
COMPATIBILITY = 'https://git.example.com/netbox-webhooks/blob/main/COMPATIBILITY.md'
