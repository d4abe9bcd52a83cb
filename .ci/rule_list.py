"""The page about the rules, from the rule list and the figures of the domain."""

from __future__ import annotations

from dataclasses import fields

from rxoutflow_server.domain.prescription_rules import NATIONAL
from rxoutflow_server.domain.rule_book import RULE_LIST, RuleEntry
from rxoutflow_server.domain.suspicions import DEFAULT_THRESHOLDS

_FIGURES = {
    "max_validity_days": "R1: days of validity, the day of issue counted as the first",
    "max_supply_days": "R2: days of supply without a reason",
    "max_emergency_supply_days": "R2: days of supply in an emergency",
    "max_lines": "R3: drugs on a sheet",
    "long_usual_weeks": "R6: weeks of a long prescription without an assessment",
    "long_max_weeks": "R6: weeks of a long prescription at most",
    "long_antimicrobial_diagnoses": "R6: ICD-10 prefixes that let an antimicrobial be long",
    "guardian_age_years": "R8: below this age a guardian is present",
    "adult_age_years": "R7: below this age no psychotropic II",
}
_THRESHOLDS = {
    "encounter_prescriptions": "prescriptions of one encounter",
    "prescriptions_an_hour": "prescriptions of one prescriber within 60 minutes",
    "places_minutes": "minutes between one person's signatures at two institutions",
    "early_refill_days": "days of supply left when the same drug is prescribed again",
    "returns_a_day": "returns at one pharmacy on one local day",
    "returns_a_person": "returns for one person",
}
_HEAD = """# The rules

Generated from `domain/rule_book.py`; do not edit. Each rule of the field has an id that errors,
findings and tests name. Pre-check (`PrecheckPrescription`) runs all rules of its stage and returns
every finding at once; registration enforces the same ones.

| id | rule | source | where | effect | figures from |
|---|---|---|---|---|---|
"""
_FILE = """
## The rules file

What the measures leave to a region stands in a TOML file, named by `reference.rules` in the
platform's configuration. Each version has a document reference and the days on which it applies,
half open; the day of issue decides. A figure that a version leaves out is the national one; without
a file all are. Unknown keys, overlapping versions and figures below 1 are refused at start, with
file, key and reason; `rxoutflow-server platform --config FILE --check` looks before you restart.

```toml
region_code = "350200"
region_name = "厦门"

[[version]]
version_id = "350200-rules-2026"
document = "the document that sets these figures"
valid_from = 2026-01-01        # the first day
# valid_until = 2027-01-01     # the first day on which it no longer applies; left out: open
max_supply_days = 14

[version.suspicion]            # thresholds of R23
returns_a_day = 3
```

| key of a version | national | meaning |
|---|---|---|
"""
_SUSPICION = """
## A second look (R23)

`rxoutflow-server supervise --config FILE --day YYYY-MM-DD [--csv FILE]` reads the platform's store
beside the running service and lists patterns of that local day. Nobody is blocked by them and no
patient is named. Exit status 1 means that something was found.

A second table lists the institutions of this region that are above the quota of their agreement
(R18) at the end of that day, in the year or month that the day falls in. Counted is what funds and
accounts paid, on the day on which the payer paid it, less what went back: for a pharmacy what it
dispensed, for a hospital what was dispensed for its prescriptions. Exactly the quota is not above
it. Within ten minutes of crossing it the institution has a notice `KIND_QUOTA_EXCEEDED`, once for
each crossing. Nothing is refused for it.

| key of `[version.suspicion]` | default | flagged from this on |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = "".join(f"{_row(entry)}\n" for entry in RULE_LIST)
    figures = "".join(f"| `{key}` | {_shown(key)} | {_FIGURES[key]} |\n" for key in _FIGURES)
    keys = [each.name for each in fields(DEFAULT_THRESHOLDS)]
    thresholds = "".join(
        f"| `{key}` | {getattr(DEFAULT_THRESHOLDS, key)} | {_THRESHOLDS[key]} |\n" for key in keys
    )
    return f"{_HEAD}{rows}{_FILE}{figures}{_SUSPICION}{thresholds}"


def _row(entry: RuleEntry) -> str:
    stages = ", ".join(entry.stages)
    cells = (entry.id, entry.says, entry.source, stages, entry.effect, entry.figures)
    return f"| {' | '.join(cells)} |"


def _shown(key: str) -> str:
    value = getattr(NATIONAL, key)
    return ", ".join(value) if isinstance(value, tuple) else str(value)
