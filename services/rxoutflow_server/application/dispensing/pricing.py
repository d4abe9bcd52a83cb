"""Pricing: what the catalogue of this region says of the lines that a pharmacy would hand over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rxoutflow.v1 import prescription_pb2, settlement_pb2
from rxoutflow.v1.statement_pb2 import SignedStatement
from rxoutflow_server.application.messages import catalogued_line
from rxoutflow_server.application.region import LOCAL_TIME, Region
from rxoutflow_server.domain.errors import Reason, Refusal


def priced(
    region: Region,
    prescription: prescription_pb2.Prescription,
    lines: Iterable[settlement_pb2.PricedLine],
    *,
    pharmacy_code: str,
    settlement_id: str,
    attempt_id: str,
    now: datetime,
) -> SignedStatement:
    """The lines with category, first self-pay and limits, signed by this platform for the payer.

    The lines are checked before.

    Raises:
        Refusal: LINE_UNKNOWN, QUANTITY_EXCEEDED, DRUG_NOT_IN_CATALOGUE or PRICE_ABOVE_CATALOGUE.
    """
    pricing = settlement_pb2.Pricing(
        prescription_number=prescription.prescription_number,
        settlement_id=settlement_id,
        attempt_id=attempt_id,
        pharmacy_code=pharmacy_code,
        catalogue_version=region.catalogue.version_id,
        dispense_day=now.astimezone(LOCAL_TIME).date().isoformat(),
        lines=[_catalogued(region, prescription, line) for line in lines],
    )
    return region.seal(pricing, audience=prescription.patient.payer_region_code, now=now)


def _catalogued(
    region: Region,
    prescription: prescription_pb2.Prescription,
    line: settlement_pb2.PricedLine,
) -> settlement_pb2.CataloguedLine:
    prescribed = _prescribed_line(prescription, line.line_id)
    _require_prescribed_product(region, prescribed, line)
    if line.quantity > prescribed.quantity:
        raise Refusal(
            Reason.QUANTITY_EXCEEDED,
            f"line {line.line_id}: {line.quantity} wanted, {prescribed.quantity} prescribed",
            line_id=str(line.line_id),
            available=str(prescribed.quantity),
        )
    unmet = prescribed.HasField("limited_use") and not prescribed.limited_use.met
    entry = region.catalogue.price(
        line.drug_code,
        line.unit_price_micro_yuan,
        quantity=line.quantity,
        limited_use_unmet=unmet,
    )
    return catalogued_line(line, entry)


def _prescribed_line(
    prescription: prescription_pb2.Prescription, line_id: int
) -> prescription_pb2.PrescriptionLine:
    for line in prescription.lines:
        if line.line_id == line_id:
            return line
    raise Refusal(
        Reason.LINE_UNKNOWN,
        f"line {line_id}: the prescription does not have it",
        line_id=str(line_id),
    )


def _require_prescribed_product(
    region: Region, prescribed: prescription_pb2.PrescriptionLine, line: settlement_pb2.PricedLine
) -> None:
    """R21: the prescribed product, or one of its generic group if the prescriber allows it."""
    if line.drug_code == prescribed.drug_code:
        return
    wanted = region.catalogue.drug(prescribed.drug_code).generic_group
    offered = region.catalogue.drug(line.drug_code).generic_group
    if not prescribed.substitution_allowed or wanted != offered:
        raise Refusal(
            Reason.DRUG_NOT_IN_CATALOGUE,
            f"line {line.line_id}: {line.drug_code} is neither the prescribed product nor a"
            " substitute that the prescriber allowed",
            drug_code=line.drug_code,
        )
