VERSION = '2.0.0'
# A wheel does not have the file.
COMPATIBILITY = 'https://git.example.com/netbox-webhooks/blob/main/COMPATIBILITY.md'
