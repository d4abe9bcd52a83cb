"""Abuse in the gate: the servers and requests that all of it starts from."""

from __future__ import annotations

from support.started import _prepared, premises

__all__ = ["_prepared", "premises"]
