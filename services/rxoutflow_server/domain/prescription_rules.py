"""The rules about what a prescription says, as a table of checks over plain facts.

``findings`` reports everything that is wrong at once, so that a prescriber corrects a prescription
once. Each row of ``RULES`` names its rule, its source and whether a finding refuses or only warns.
Figures that a region may set are ``Parameters``, dated data with the national measures as defaults.

Only content is judged here. Signatures and seals (R5), duplicates over time (R23) and who is
allowed to call are judged elsewhere. Findings never contain personal data: they name the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from enum import StrEnum, unique

from stdnum.cn import ric, uscc

from rxoutflow_server.domain.catalogue import DrugFlag

MONTHS_A_YEAR = 12
DAYS_A_WEEK = 7


@unique
class PrescriptionType(StrEnum):
    """What kind of drugs the sheet is for (西药, 中成药, 中药饮片)."""

    WESTERN = "WESTERN"
    PATENT = "PATENT"
    HERBAL = "HERBAL"


@unique
class EncounterKind(StrEnum):
    """How patient and prescriber met."""

    VISIT = "VISIT"
    INTERNET = "INTERNET"


@unique
class Severity(StrEnum):
    """REFUSE stops the prescription; WARN tells the prescriber and lets it pass."""

    REFUSE = "REFUSE"
    WARN = "WARN"


@dataclass(frozen=True, slots=True)
class Practitioner:
    """A person who answers for a part of the prescription."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class PrescribedLine:
    """One drug of the prescription; quantity in smallest units.

    ``limited_use_stated`` tells whether the prescriber says that a limit of use is met or not.
    """

    drug_code: str
    supply_days: int
    quantity: int
    flags: frozenset[DrugFlag] = frozenset()
    limited_use_stated: bool = False
    is_limited: bool = False


@dataclass(frozen=True, slots=True)
class PrescriptionFacts:
    """What the rules need to know of a prescription.

    ``issue_time`` and ``expire_time`` are aware; the prescription is valid from the first up to,
    and not including, the second. ``issue_day`` is the home region's local day of issue.
    ``reviewer`` is None in a pre-check, before the hospital's pharmacist has reviewed.
    ``patient_identity_number`` is None when the person is known by another document than a resident
    identity card, ``institution_credit_code`` when the sheet does not carry one. ``fill_count`` is
    how often a long prescription may be filled in all, ``fill_interval_days`` how far apart;
    ``dose_count`` is that of a herbal formula, 0 without one.
    """

    issue_time: datetime
    expire_time: datetime
    issue_day: date
    type: PrescriptionType
    lines: tuple[PrescribedLine, ...]
    encounter_kind: EncounterKind
    patient_age_months: int
    prescriber: Practitioner
    reviewer: Practitioner | None
    institution_code: str
    institution_credit_code: str | None = None
    patient_identity_number: str | None = None
    is_emergency: bool = False
    supply_reason: str = ""
    is_long_prescription: bool = False
    long_assessment: str = ""
    fill_count: int = 1
    fill_interval_days: int = 0
    dose_count: int = 0
    is_follow_up: bool = False
    diagnosis_established: bool = False
    diagnosis_codes: tuple[str, ...] = ()
    guardian_present: bool = False


@dataclass(frozen=True, slots=True)
class Parameters:
    """The figures of the rules, in force from a day until another day; defaults are national.

    ``max_validity_days`` counts the day of issue as the first; a region that does not count it sets
    one more. ``utc_offset_minutes`` turns days into instants. ``long_antimicrobial_diagnoses`` are
    ICD-10 prefixes for which R6 lets an antimicrobial be prescribed long: tuberculosis, leprosy and
    other mycobacteria.
    """

    version_id: str = "national"
    document: str = "处方管理办法; 长期处方管理规范（试行）; 互联网诊疗管理办法（试行）"
    valid_from: date = date.min
    valid_until: date | None = None
    utc_offset_minutes: int = 480
    max_validity_days: int = 3
    max_supply_days: int = 7
    max_emergency_supply_days: int = 3
    max_lines: int = 5
    long_usual_weeks: int = 4
    long_max_weeks: int = 12
    long_antimicrobial_diagnoses: tuple[str, ...] = (
        "A15",
        "A16",
        "A17",
        "A18",
        "A19",
        "A30",
        "A31",
    )
    guardian_age_years: int = 6
    adult_age_years: int = 18

    def in_force_on(self, day: date) -> bool:
        """Whether these figures apply to what is issued on that day."""
        return self.valid_from <= day and (self.valid_until is None or day < self.valid_until)


NATIONAL = Parameters()
"""The national measures: what applies where a region has set nothing of its own."""


def parameters_in_force(versions: Iterable[Parameters], day: date) -> Parameters:
    """A region's version in force on that day, or the national measures when it has none."""
    return next((version for version in versions if version.in_force_on(day)), NATIONAL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: under which rule, in which field, and what to do about it.

    ``field`` is the path in the contract's Prescription message.
    """

    rule_id: str
    severity: Severity
    field: str
    message: str
    source: str


Problem = tuple[str, str]
"""A field of the prescription and what to do about it."""

Check = Callable[[PrescriptionFacts, Parameters], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the rule table."""

    id: str
    source: str
    severity: Severity
    check: Check


def findings(
    facts: PrescriptionFacts,
    parameters: Parameters = NATIONAL,
    catalogue_flags: Mapping[str, frozenset[DrugFlag]] | None = None,
    limited_drugs: frozenset[str] = frozenset(),
) -> tuple[Finding, ...]:
    """Everything that the rules have against the prescription, in the order of the table.

    Args:
        facts: what the prescription says.
        parameters: the home region's figures in force on the day of issue.
        catalogue_flags: the catalogue's flags by drug code. They are added to those that the lines
            state, so leaving a flag out of a line evades nothing.
        limited_drugs: codes of the drugs whose use the catalogue limits.
    """
    facts = _as_catalogued(facts, catalogue_flags or {}, limited_drugs)
    return tuple(
        Finding(rule.id, rule.severity, field, message, rule.source)
        for rule in RULES
        for field, message in rule.check(facts, parameters)
    )


def _as_catalogued(
    facts: PrescriptionFacts,
    catalogue_flags: Mapping[str, frozenset[DrugFlag]],
    limited_drugs: frozenset[str],
) -> PrescriptionFacts:
    lines = tuple(_line_as_catalogued(line, catalogue_flags, limited_drugs) for line in facts.lines)
    return facts if lines == facts.lines else replace(facts, lines=lines)


def _line_as_catalogued(
    line: PrescribedLine,
    catalogue_flags: Mapping[str, frozenset[DrugFlag]],
    limited_drugs: frozenset[str],
) -> PrescribedLine:
    flags = line.flags | catalogue_flags.get(line.drug_code, frozenset())
    is_limited = line.is_limited or line.drug_code in limited_drugs
    if (flags, is_limited) == (line.flags, line.is_limited):
        return line
    return replace(line, flags=flags, is_limited=is_limited)


def _validity(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    region = timezone(timedelta(minutes=parameters.utc_offset_minutes))
    if facts.issue_time.astimezone(region).date() != facts.issue_day:
        yield "issue_time", "the day of issue must be the home region's local day of issue_time"
    if facts.expire_time <= facts.issue_time:
        yield "expire_time", "the prescription must expire after it is issued"
    days = _max_validity_days(facts, parameters)
    end = facts.issue_day + timedelta(days=days)
    if facts.expire_time > datetime.combine(end, time(), region):
        yield (
            "expire_time",
            f"valid for at most {days} days counting the day of issue: let it expire by the start "
            f"of {end.isoformat()}",
        )


def _is_repeat(facts: PrescriptionFacts) -> bool:
    return facts.is_long_prescription and facts.fill_count > 1


def _max_validity_days(facts: PrescriptionFacts, parameters: Parameters) -> int:
    """The days of R1 for every fill: each may be collected as late after it opens as the first."""
    days = parameters.max_validity_days
    if not _is_repeat(facts):
        return days
    last_fill_opens = (facts.fill_count - 1) * (facts.fill_interval_days + days - 1)
    return min(last_fill_opens + days, parameters.long_max_weeks * DAYS_A_WEEK)


def _usual_supply_days(facts: PrescriptionFacts, parameters: Parameters) -> int:
    if facts.is_emergency:
        return parameters.max_emergency_supply_days
    return parameters.max_supply_days


def _supply(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    usual = _usual_supply_days(facts, parameters)
    reason_given = bool(facts.supply_reason.strip()) or facts.is_long_prescription
    for index, line in enumerate(facts.lines):
        if line.supply_days < 1:
            yield f"lines[{index}].supply_days", "state for how many days the line is, at least 1"
        if line.supply_days > usual and not reason_given:
            yield (
                f"lines[{index}].supply_days",
                f"more than {usual} days need a reason: write it in supply_reason, mark a long "
                f"prescription, or prescribe at most {usual} days",
            )


def _supply_reminder(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    usual = _usual_supply_days(facts, parameters)
    if facts.is_long_prescription or not facts.supply_reason.strip():
        return
    if any(line.supply_days > usual for line in facts.lines):
        yield "supply_reason", f"supply exceeds {usual} days: the reviewer weighs the reason given"


def _sheet(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    if not facts.lines:
        yield "lines", "a prescription names at least one drug"
    for index, line in enumerate(facts.lines):
        if line.quantity < 1:
            yield f"lines[{index}].quantity", "state how much is prescribed, at least 1"
    is_herbal_sheet = facts.type is PrescriptionType.HERBAL
    if not is_herbal_sheet and len(facts.lines) > parameters.max_lines:
        yield "lines", f"at most {parameters.max_lines} drugs: write the others on another sheet"
    for index, line in enumerate(facts.lines):
        if (DrugFlag.HERBAL in line.flags) != is_herbal_sheet:
            yield (
                f"lines[{index}].drug_code",
                "herbal pieces have a prescription of their own: move this line to another sheet",
            )


_NEVER_LONG = (
    DrugFlag.TOXIC,
    DrugFlag.RADIOACTIVE,
    DrugFlag.PRECURSOR,
    DrugFlag.NARCOTIC,
    DrugFlag.PSYCHOTROPIC_1,
    DrugFlag.PSYCHOTROPIC_2,
    DrugFlag.SPECIAL_STORAGE,
    DrugFlag.ANTIMICROBIAL,
)


def _long_supply(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    # Also without the mark: leaving it out must not make more days possible than setting it.
    usual, maximum = parameters.long_usual_weeks, parameters.long_max_weeks
    assessed = bool(facts.long_assessment.strip())
    for index, line in enumerate(facts.lines):
        if line.supply_days > maximum * DAYS_A_WEEK:
            yield f"lines[{index}].supply_days", f"prescribe at most {maximum} weeks"
        elif line.supply_days > usual * DAYS_A_WEEK and not assessed:
            yield (
                "long_prescription.assessment",
                f"line {index + 1} is for more than {usual} weeks: record the assessment",
            )


_INTERVAL = "long_prescription.fill_interval_days"


def _repeat(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    """A repeat plan can be carried out: its fills open in time, and there is enough to share."""
    if not _is_repeat(facts):
        return
    if facts.fill_interval_days < 1:
        yield _INTERVAL, "say after how many days the next fill opens, at least 1"
        return
    region = timezone(timedelta(minutes=parameters.utc_offset_minutes))
    days = (facts.fill_count - 1) * facts.fill_interval_days
    last_fill = facts.issue_day + timedelta(days=days)
    if days >= parameters.long_max_weeks * DAYS_A_WEEK:
        yield _INTERVAL, f"the last fill must open within {parameters.long_max_weeks} weeks"
    elif facts.expire_time <= datetime.combine(last_fill, time(), region):
        yield (
            "expire_time",
            f"the last fill opens on {last_fill.isoformat()} at the earliest: let the prescription "
            "expire after that day, or plan fewer fills",
        )
    yield from _shares(facts)


def _shares(facts: PrescriptionFacts) -> Iterator[Problem]:
    if 0 < facts.dose_count < facts.fill_count:
        yield "herbal_formula.dose_count", "each fill needs at least one dose: plan fewer fills"
    for index, line in enumerate(facts.lines):
        if line.quantity < facts.fill_count:
            yield (
                f"lines[{index}].quantity",
                f"{facts.fill_count} fills need at least 1 each: prescribe more, or plan fewer",
            )


def _doses(facts: PrescriptionFacts, _: Parameters) -> Iterator[Problem]:
    """A formula is so many equal doses of all its herbs (art. 6)."""
    for index, line in enumerate(facts.lines):
        if facts.dose_count and line.quantity % facts.dose_count:
            yield (
                f"lines[{index}].quantity",
                f"give what {facts.dose_count} doses hold together: a multiple of the doses",
            )


def _long_drugs(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    for index, line in enumerate(facts.lines):
        if not _is_long(facts, line, parameters):
            continue
        for flag in _NEVER_LONG:
            if flag in line.flags and not _long_course_allowed(flag, facts, parameters):
                yield (
                    f"lines[{index}].drug_code",
                    f"a drug with the flag {flag} cannot be on a long prescription: "
                    "prescribe it on its own, for the usual days",
                )


def _is_long(facts: PrescriptionFacts, line: PrescribedLine, parameters: Parameters) -> bool:
    beyond_usual = line.supply_days > parameters.long_usual_weeks * DAYS_A_WEEK
    return facts.is_long_prescription or beyond_usual


def _long_course_allowed(flag: DrugFlag, facts: PrescriptionFacts, parameters: Parameters) -> bool:
    return flag is DrugFlag.ANTIMICROBIAL and any(
        code.startswith(parameters.long_antimicrobial_diagnoses) for code in facts.diagnosis_codes
    )


def _controlled(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    for index, line in enumerate(facts.lines):
        field = f"lines[{index}].drug_code"
        for flag in (DrugFlag.NARCOTIC, DrugFlag.PSYCHOTROPIC_1):
            if flag in line.flags:
                yield field, f"a drug with the flag {flag} is dispensed in the hospital only"
        if DrugFlag.PSYCHOTROPIC_2 not in line.flags:
            continue
        if facts.patient_age_months < parameters.adult_age_years * MONTHS_A_YEAR:
            yield field, "retail pharmacies do not supply psychotropic II to minors"
        if facts.encounter_kind is EncounterKind.INTERNET:
            yield field, "psychotropic II needs a visit: it is never prescribed over the internet"


def _internet(facts: PrescriptionFacts, parameters: Parameters) -> Iterator[Problem]:
    if facts.encounter_kind is not EncounterKind.INTERNET:
        return
    if not facts.is_follow_up:
        yield (
            "encounter.follow_up",
            "internet prescriptions are for follow-up visits: see the patient",
        )
    if not facts.diagnosis_established:
        yield (
            "encounter.diagnoses",
            "an internet prescription repeats a diagnosis already made in a physical hospital",
        )
    needs_guardian = facts.patient_age_months < parameters.guardian_age_years * MONTHS_A_YEAR
    if needs_guardian and not facts.guardian_present:
        yield (
            "patient.guardian_name",
            f"a child under {parameters.guardian_age_years} needs a guardian present",
        )


_PRESCRIBER = "issuer.prescriber"
_REVIEWER = "issuer.reviewing_pharmacist"


def _names(facts: PrescriptionFacts, _: Parameters) -> Iterator[Problem]:
    yield from _unnamed(_PRESCRIBER, facts.prescriber)
    if facts.reviewer is not None:
        yield from _unnamed(_REVIEWER, facts.reviewer)


def _unnamed(role: str, person: Practitioner) -> Iterator[Problem]:
    if not person.code.strip():
        yield f"{role}.person_code", "give the code of the person who signs in this role"
    if not person.name.strip():
        yield f"{role}.name", "give the name of the person who signs in this role"


def _distinct_people(facts: PrescriptionFacts, _: Parameters) -> Iterator[Problem]:
    if facts.reviewer is not None:
        yield from same_person({_PRESCRIBER: facts.prescriber.code, _REVIEWER: facts.reviewer.code})


def same_person(codes_by_role: Mapping[str, str]) -> Iterator[Problem]:
    """Roles held by one person that need different people (R10).

    At the pharmacy: prescriber, reviewer and dispenser. Roles come in the order of the work; empty
    codes are left to R9.
    """
    roles_by_code: dict[str, str] = {}
    for role, code in codes_by_role.items():
        person = code.strip()
        if person and (earlier := roles_by_code.setdefault(person, role)) != role:
            yield f"{role}.person_code", f"{earlier} and {role} must be different people"


def _limited_use(facts: PrescriptionFacts, _: Parameters) -> Iterator[Problem]:
    for index, line in enumerate(facts.lines):
        if line.is_limited and not line.limited_use_stated:
            yield (
                f"lines[{index}].limited_use",
                "the use of this drug is limited: say whether the patient fulfils it, and why",
            )


_RESIDENT_NUMBER = re.compile(r"[0-9]{17}[0-9X]")
_INSTITUTION_CODE = re.compile(r"H[0-9]{11}")


def _identifiers(facts: PrescriptionFacts, _: Parameters) -> Iterator[Problem]:
    number, credit_code = facts.patient_identity_number, facts.institution_credit_code
    if number is not None and not is_resident_number(number):
        yield "patient.identity_number", "not a resident identity number (GB 11643): check it"
    if credit_code is not None and not is_credit_code(credit_code):
        yield "institution_credit_code", "not a unified social credit code (GB 32100): check it"
    if not _INSTITUTION_CODE.fullmatch(facts.institution_code):
        yield (
            "issuer.institution_code",
            "give H, the six digits of the region and a five-digit serial",
        )


def is_resident_number(number: str) -> bool:
    """Whether a resident identity number is well formed under GB 11643: shape, date, check digit.

    Not ``stdnum.cn.ric.validate``: that also wants the county code to have existed in the year of
    birth, and so refuses most people born before their district was founded.
    """
    if not _RESIDENT_NUMBER.fullmatch(number) or number[-1] != ric.calc_check_digit(number):
        return False
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return True


def is_credit_code(code: str) -> bool:
    """Whether an institution's credit code is well formed under GB 32100, written canonically."""
    return uscc.is_valid(code) and uscc.compact(code) == code


RULES: tuple[Rule, ...] = (
    Rule("R1", "处方管理办法 art. 18", Severity.REFUSE, _validity),
    Rule("R2", "处方管理办法 art. 19", Severity.REFUSE, _supply),
    Rule("R2", "处方管理办法 art. 19", Severity.WARN, _supply_reminder),
    Rule("R3", "处方管理办法 art. 6", Severity.REFUSE, _sheet),
    Rule("R3", "处方管理办法 art. 6", Severity.REFUSE, _doses),
    Rule("R6", "长期处方管理规范（试行） 2021", Severity.REFUSE, _long_supply),
    Rule("R6", "长期处方管理规范（试行） 2021", Severity.REFUSE, _repeat),
    Rule("R6", "长期处方管理规范（试行） 2021", Severity.REFUSE, _long_drugs),
    Rule(
        "R7",
        "麻醉药品和精神药品管理条例 art. 30; 互联网诊疗管理办法 art. 19",
        Severity.REFUSE,
        _controlled,
    ),
    Rule("R8", "互联网诊疗管理办法（试行）; Xiamen 2020", Severity.REFUSE, _internet),
    Rule("R9", "互联网诊疗监管细则（试行） 2022", Severity.REFUSE, _names),
    Rule("R10", "national interface fields", Severity.REFUSE, _distinct_people),
    Rule("R16", "national interface fields", Severity.WARN, _limited_use),
    Rule("R22", "GB 11643; GB 32100", Severity.REFUSE, _identifiers),
)
