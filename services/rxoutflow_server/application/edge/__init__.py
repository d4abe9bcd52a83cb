"""What an institution's edge service (前置机) does between its own systems and the platform.

The institution's people have signed; the edge verifies that, adds the institution's seal, stores,
and forwards. What it forwards is stored first, so that a repeated request carries the same bytes
(ECDSA never makes the same signature twice). It decides nothing that the platform decides, and
believes no answer that does not verify. The way to the platform, time, randomness and pauses come
in from outside; there is no gRPC here.
"""
