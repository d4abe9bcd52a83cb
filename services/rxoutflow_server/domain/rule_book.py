"""A region's rules as dated data, and the list of all rules with the place that enforces each.

The measures are national; a region sets the figures that they leave to it, from a day until another
one. Which version applies is decided by the day of issue (R1 to R10) or by the day that is looked
at (R23), never by the day on which somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum, unique

from rxoutflow_server.domain.prescription_rules import Parameters, parameters_in_force
from rxoutflow_server.domain.suspicions import DEFAULT_THRESHOLDS, Thresholds


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """What a region set from a day until another one."""

    parameters: Parameters
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All versions of a region, the earliest first; empty: the national measures alone."""

    versions: tuple[RuleVersion, ...] = ()

    def parameters_on(self, day: date) -> Parameters:
        """The figures of the rules in force on that day."""
        return parameters_in_force((each.parameters for each in self.versions), day)

    def thresholds_on(self, day: date) -> Thresholds:
        """The thresholds of R23 in force on that day."""
        for each in self.versions:
            if each.parameters.in_force_on(day):
                return each.thresholds
        return DEFAULT_THRESHOLDS


@unique
class Stage(StrEnum):
    """When a rule is looked at."""

    PRECHECK = "pre-check and registration"
    SIGNATURES = "every statement"
    CLAIM = "claim"
    COMMIT = "quote and commit"
    RECORD = "dispense record"
    KEEPING = "keeping of records"
    SUPERVISION = "supervision, afterwards"


@unique
class Effect(StrEnum):
    """What a rule does when it is broken."""

    REFUSE = "refuses"
    WARN = "warns"
    REFUSE_OR_WARN = "refuses or warns"
    COMPUTE = "computes"
    FLAG = "flags"
    KEEP = "keeps"


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A row of the list of rules."""

    id: str
    says: str
    source: str
    stages: tuple[Stage, ...]
    effect: Effect
    figures: str
    """Where the figures come from; empty if there are none."""


_RULES_FILE = "rules file"
_TARIFF = "tariff"
_CATALOGUE = "catalogue"
_TRUST_LIST = "trust list"

RULE_LIST: tuple[RuleEntry, ...] = (
    RuleEntry(
        "R1",
        "valid on the day of issue, at most three days; a repeat plan outlives its last fill",
        "处方管理办法 art. 18",
        (Stage.PRECHECK, Stage.CLAIM),
        Effect.REFUSE,
        _RULES_FILE,
    ),
    RuleEntry(
        "R2",
        "supply of at most seven days, three in an emergency, longer with the reason written",
        "处方管理办法 art. 19",
        (Stage.PRECHECK,),
        Effect.REFUSE_OR_WARN,
        _RULES_FILE,
    ),
    RuleEntry(
        "R3",
        "at most five drugs on a sheet; herbal pieces on a sheet of their own, in whole doses",
        "处方管理办法 art. 6",
        (Stage.PRECHECK, Stage.CLAIM, Stage.COMMIT),
        Effect.REFUSE,
        _RULES_FILE,
    ),
    RuleEntry(
        "R4",
        "statements are kept for as long as the store exists: longer than the two and three years"
        " that the law asks for",
        "处方管理办法 art. 50; outflow rule second-hand",
        (Stage.KEEPING,),
        Effect.KEEP,
        "",
    ),
    RuleEntry(
        "R5",
        "prescriber's signature, hospital pharmacist's review and hospital's seal, in this order",
        "outflow rules; national interface",
        (Stage.SIGNATURES,),
        Effect.REFUSE,
        _TRUST_LIST,
    ),
    RuleEntry(
        "R6",
        "a long prescription usually up to four weeks, at most twelve, and not for every drug; a"
        " repeat plan opens fill by fill",
        "长期处方管理规范（试行） 2021",
        (Stage.PRECHECK, Stage.CLAIM),
        Effect.REFUSE,
        f"{_RULES_FILE}, {_CATALOGUE}",
    ),
    RuleEntry(
        "R7",
        "narcotic and psychotropic I never leave; psychotropic II not to minors nor over the"
        " internet",
        "麻醉药品和精神药品管理条例 art. 30; 互联网诊疗管理办法 art. 19",
        (Stage.PRECHECK,),
        Effect.REFUSE,
        f"{_RULES_FILE}, {_CATALOGUE}",
    ),
    RuleEntry(
        "R8",
        "over the internet only follow-up visits; a child under six needs a guardian",
        "互联网诊疗管理办法（试行）; Xiamen 2020",
        (Stage.PRECHECK,),
        Effect.REFUSE,
        _RULES_FILE,
    ),
    RuleEntry(
        "R9",
        "a prescription names and is signed by a person",
        "互联网诊疗监管细则（试行） 2022",
        (Stage.PRECHECK, Stage.SIGNATURES),
        Effect.REFUSE,
        _TRUST_LIST,
    ),
    RuleEntry(
        "R10",
        "a pharmacist reviews before circulation and before dispensing; reviewer, dispenser and"
        " prescriber are different people",
        "national interface fields",
        (Stage.PRECHECK, Stage.SIGNATURES),
        Effect.REFUSE,
        _TRUST_LIST,
    ),
    RuleEntry(
        "R11",
        "the tier of the issuing hospital decides on the ratio",
        "同等报销待遇, State Council guidance 2021",
        (Stage.COMMIT,),
        Effect.COMPUTE,
        f"{_TRUST_LIST}, {_TARIFF}",
    ),
    RuleEntry(
        "R12",
        "a delivery fee stands beside the settlement, always cash",
        "Xiamen 2020",
        (Stage.COMMIT, Stage.RECORD),
        Effect.COMPUTE,
        "",
    ),
    RuleEntry(
        "R13",
        "the dispensing region's catalogue and prices, the payer's benefit",
        "就医地目录、参保地政策",
        (Stage.COMMIT,),
        Effect.COMPUTE,
        f"{_CATALOGUE}, {_TARIFF}",
    ),
    RuleEntry(
        "R14",
        "away from home a factor by status: filed, referred, emergency, unfiled",
        "city rules",
        (Stage.COMMIT,),
        Effect.COMPUTE,
        _TARIFF,
    ),
    RuleEntry(
        "R15",
        "chronic and special disease: listed diseases and drugs, enrolled persons, own deductible,"
        " ratio and cap",
        "State Council guidance 2021",
        (Stage.COMMIT,),
        Effect.COMPUTE,
        _TARIFF,
    ),
    RuleEntry(
        "R16",
        "a limited-use drug outside its limit is own cost, with the reason recorded",
        "national interface fields",
        (Stage.PRECHECK, Stage.COMMIT),
        Effect.REFUSE_OR_WARN,
        _CATALOGUE,
    ),
    RuleEntry(
        "R17",
        "trace codes are scanned before the fund pays; a box is sold once",
        "notices of 2025",
        (Stage.RECORD,),
        Effect.REFUSE,
        "",
    ),
    RuleEntry(
        "R18",
        "scope of the institution's agreement, and its total quota",
        "Jiangsu, Nantong 2020",
        (Stage.PRECHECK, Stage.CLAIM, Stage.SUPERVISION),
        Effect.REFUSE_OR_WARN,
        _TRUST_LIST,
    ),
    RuleEntry(
        "R19",
        "no direct settlement for a suspended person; no new issues or claims for a suspended"
        " institution",
        "Xiamen 2020",
        (Stage.PRECHECK, Stage.CLAIM, Stage.COMMIT),
        Effect.REFUSE,
        _TRUST_LIST,
    ),
    RuleEntry(
        "R20",
        "the tariff version in force on the day of dispensing, kept in the settlement",
        "incident notes of public projects",
        (Stage.COMMIT,),
        Effect.COMPUTE,
        _TARIFF,
    ),
    RuleEntry(
        "R21",
        "no drug, quantity or price outside what was prescribed and catalogued; substitutes only"
        " within the generic group, where the prescriber allows it",
        "supervision cases",
        (Stage.CLAIM, Stage.COMMIT, Stage.RECORD),
        Effect.REFUSE,
        _CATALOGUE,
    ),
    RuleEntry(
        "R22",
        "identity numbers (GB 11643) and credit codes (GB 32100) have their check characters",
        "GB 11643; GB 32100",
        (Stage.PRECHECK,),
        Effect.REFUSE,
        "",
    ),
    RuleEntry(
        "R23",
        "patterns that deserve a second look: split encounters, velocity, dispensing before issue,"
        " one person in two places, early refills, repeated returns",
        "医疗保障基金使用监督管理条例 2021; published cases",
        (Stage.SUPERVISION,),
        Effect.FLAG,
        _RULES_FILE,
    ),
)
"""Every rule by its id, in order. What each does is at the named stage."""


def rule_source(rule_id: str) -> str:
    """The law or regulation behind a rule of the list."""
    return next(entry.source for entry in RULE_LIST if entry.id == rule_id)
