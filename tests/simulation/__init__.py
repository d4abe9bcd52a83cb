"""The deterministic simulation of a whole federation; see docs/reliability.md."""
