"""The contract: generated from protos/, checked against them, never edited."""
