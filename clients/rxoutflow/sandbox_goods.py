"""Made-up batches and trace codes, for sandboxes and demonstrations only.

A real pharmacy scans boxes. In a sandbox there are none, so every call makes up fresh ones: 20
digits that begin with 9999, which no product has. A code is sold once in the whole federation, so
nothing here repeats.
"""

from __future__ import annotations

from collections.abc import Iterable

from rxoutflow.numbers import RandomBytes
from rxoutflow.v1.dispense_pb2 import DispensedLine, TraceCode
from rxoutflow.v1.settlement_pb2 import PricedLine


def invented_boxes(
    lines: Iterable[PricedLine], herbal: bool, random_bytes: RandomBytes
) -> list[DispensedLine]:
    """What would be handed over for these lines: one box a line, herbs without trace code."""
    return [
        DispensedLine(
            line_id=line.line_id,
            drug_code=line.drug_code,
            quantity=line.quantity,
            batch_numbers=["SYN-BATCH-1"],
            trace_codes=[] if herbal else [TraceCode(code=_trace_code(random_bytes))],
        )
        for line in lines
    ]


def _trace_code(random_bytes: RandomBytes) -> str:
    return f"9999{int.from_bytes(random_bytes(8)) % 10**16:016}"
