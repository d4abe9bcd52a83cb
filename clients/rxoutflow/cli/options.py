"""Options that many commands share, and the small texts that they are given as."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import click

from rxoutflow.cli.desk import Desk
from rxoutflow.errors import InvalidInput
from rxoutflow.v1.attempt_pb2 import LineQuantity
from rxoutflow.v1.dispense_pb2 import DispensedLine, ReturnedLine, TraceCode
from rxoutflow.v1.settlement_pb2 import PricedLine

Command = Callable[..., None]


def answers_json(command: Command) -> Command:
    """Give a command the desk and the option ``--json``."""
    option = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_choose_json,
        help="Answer in JSON.",
    )
    return option(click.pass_obj(command))


def _choose_json(ctx: click.Context, _: click.Parameter, chosen: bool) -> None:
    desk = ctx.find_object(Desk)
    if desk is not None and chosen:
        desk.selection.as_json = True


def line_quantities(texts: Iterable[str]) -> list[LineQuantity]:
    """Read ``LINE:QUANTITY``.

    Raises:
        InvalidInput: one is not of this form.
    """
    quantities = []
    for text in texts:
        line_id, _, quantity = text.partition(":")
        quantities.append(
            LineQuantity(
                line_id=_number(line_id, "--line", "LINE:QUANTITY"),
                quantity=_number(quantity, "--line", "LINE:QUANTITY"),
            )
        )
    return quantities


def substitute(
    lines: Iterable[PricedLine], texts: Iterable[str], prices: Mapping[str, int]
) -> list[PricedLine]:
    """Put other products in, given as ``LINE:DRUG_CODE``.

    Raises:
        InvalidInput: one is not of this form, or has no price.
    """
    chosen = dict(_substitution(text) for text in texts)
    substituted = [PricedLine.FromString(line.SerializeToString()) for line in lines]
    for line in substituted:
        if drug_code := chosen.pop(line.line_id, None):
            if drug_code not in prices:
                raise InvalidInput(f"--substitute: the price list has no drug {drug_code}")
            line.drug_code = drug_code
            line.unit_price_micro_yuan = prices[drug_code]
    if chosen:
        raise InvalidInput(f"--substitute: the claim has no line {min(chosen)}")
    return substituted


def _substitution(text: str) -> tuple[int, str]:
    line_id, _, drug_code = text.partition(":")
    return _number(line_id, "--substitute", "LINE:DRUG_CODE"), drug_code


def dispensed_line(text: str, committed: Iterable[PricedLine]) -> DispensedLine:
    """Read ``LINE:BATCH[,BATCH]:TRACE[,TRACE]``; a trace code with a ``~`` is a loose sale.

    Raises:
        InvalidInput: it is not of this form, or the line was not committed.
    """
    form = "LINE:BATCH[,BATCH...][:TRACE[,TRACE...]]"
    line_id, _, rest = text.partition(":")
    batches, _, traces = rest.partition(":")
    by_id = {line.line_id: line for line in committed}
    line = by_id.get(_number(line_id, "--line", form))
    if line is None:
        raise InvalidInput(f"--line {line_id}: no such line was committed")
    if not batches:
        raise InvalidInput(f"--line {line_id}: give a batch number: {form}")
    return DispensedLine(
        line_id=line.line_id,
        drug_code=line.drug_code,
        quantity=line.quantity,
        batch_numbers=batches.split(","),
        trace_codes=[
            TraceCode(code=code.removesuffix("~"), loose_sale=code.endswith("~"))
            for code in traces.split(",")
            if code
        ],
    )


def returned_line(text: str) -> ReturnedLine:
    """Read ``LINE:QUANTITY[:TRACE,TRACE]``.

    Raises:
        InvalidInput: it is not of this form.
    """
    form = "LINE:QUANTITY[:TRACE[,TRACE...]]"
    line_id, _, rest = text.partition(":")
    quantity, _, traces = rest.partition(":")
    return ReturnedLine(
        line_id=_number(line_id, "--line", form),
        quantity=_number(quantity, "--line", form),
        trace_codes=[code for code in traces.split(",") if code],
    )


def _number(text: str, option: str, form: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InvalidInput(f"{option}: must be {form}, with numbers from 1")
    return int(text)
