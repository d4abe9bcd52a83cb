"""The law of the exchange: pure values and functions.

Nothing here knows of gRPC, Protobuf, SQL, files, clocks or randomness; times and ids come in as
arguments. Everything is immutable: a transition takes a state and returns a new one, or raises a
Refusal and thereby changes nothing.
"""
