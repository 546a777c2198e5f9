"""An event becomes a request: URL, headers and body, in the format that the webhook asks for, and signed.

In: a delivery with its event. Out: a Request for the transport.
"""
