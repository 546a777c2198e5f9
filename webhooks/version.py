VERSION = '1.1.0'
# A wheel does not have the file.
COMPATIBILITY = 'https://git.example.com/netbox-webhooks/blob/main/COMPATIBILITY.md'
