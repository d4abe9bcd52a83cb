"""What a new catalogue changes: drugs that come, drugs that go, and every field that differs."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rxoutflow_server.domain.catalogue import Catalogue, Drug
from rxoutflow_server.domain.money import percent, yuan


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of one drug, in words."""

    drug_code: str
    generic_name: str
    field: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class CatalogueChanges:
    """Drugs by code, and changed fields in the order of the new catalogue."""

    added: tuple[Drug, ...]
    removed: tuple[Drug, ...]
    changed: tuple[FieldChange, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def compare(old: Catalogue, new: Catalogue) -> CatalogueChanges:
    """What changes from one catalogue to the other."""
    before = {drug.drug_code: drug for drug in old}
    after = {drug.drug_code: drug for drug in new}
    return CatalogueChanges(
        added=tuple(drug for code, drug in after.items() if code not in before),
        removed=tuple(drug for code, drug in before.items() if code not in after),
        changed=tuple(
            change
            for code, drug in after.items()
            if code in before
            for change in _field_changes(before[code], drug)
        ),
    )


def _field_changes(old: Drug, new: Drug) -> list[FieldChange]:
    return [
        FieldChange(new.drug_code, new.generic_name, field.name, was, becomes)
        for field in fields(Drug)
        if (was := in_words(old, field.name)) != (becomes := in_words(new, field.name))
    ]


def in_words(drug: Drug, field: str) -> str:
    """A field of a drug for people: prices in yuan, shares in per cent."""
    value = getattr(drug, field)
    if value is None:
        return "-"
    if field.endswith("_micro_yuan"):
        return f"{yuan(value)} yuan"
    if field.endswith("_bp"):
        return percent(value)
    if isinstance(value, frozenset):
        return " ".join(sorted(value)) or "-"
    return str(value)
