"""How calls come in and go out: gRPC over mutual TLS, and nothing of what is said in them.

The server and its channels, who is calling, what the contract lets them call, and what errors look
like on the wire. Nothing here knows of prescriptions, stores or rules; services are passed in.
"""
