"""The registry as operators keep it: what a file must say, and what comes of each command."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from rxoutflow.identity import CallerName, KeyPurpose, SignerName
from rxoutflow.statements.payloads import Role
from rxoutflow.trust import TrustStore, read_trust_list
from rxoutflow.v1.statement_pb2 import (
    SIGNER_ROLE_HOSPITAL_SEAL,
    SIGNER_ROLE_PHARMACY_SEAL,
    SIGNER_ROLE_PLATFORM,
    SIGNER_ROLE_PRESCRIBER,
    SIGNER_ROLE_REVIEWING_PHARMACIST,
)
from rxoutflow.v1.trust_pb2 import Agreement, Institution, TrustList
from rxoutflow_server import cli_registry
from rxoutflow_server.registry import issuing
from support.pki import BEGIN, NOW, Authority, Credential, Region, ed

CODE = "350200"
AGREEMENT = {"document": "协议〔2026〕1号", "quota_fen": 5, "period": "month"}
ROLE_WORDS = {
    SIGNER_ROLE_PRESCRIBER: "prescriber",
    SIGNER_ROLE_REVIEWING_PHARMACIST: "reviewing_pharmacist",
    SIGNER_ROLE_HOSPITAL_SEAL: "hospital_seal",
    SIGNER_ROLE_PHARMACY_SEAL: "pharmacy_seal",
    SIGNER_ROLE_PLATFORM: "platform",
}

Tables = dict[str, Any]
Edit = Callable[["Office"], object]


@dataclass
class Office:
    """A registry's folder: its file, the certificates that it names, its key."""

    folder: Path
    region: Region = field(default_factory=lambda: Region.create(CODE))
    tables: Tables = field(default_factory=dict)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.hospital, self.pharmacy = self.region.hospital(), self.region.pharmacy()
        for each in self.region.trust_list.institutions:
            each.tier = 3 if each.institution_code == self.hospital.institution_code else 0
        self.tables = {
            "region": CODE,
            "name": f"Region {CODE}",
            "validity_days": 90,
            "algorithms": ["ecdsa_p256_sha256", "ed25519"],
            "endpoints": [f"platform.{CODE}.example:8443"],
            "anchors": {"transport": ["transport.pem"], "signing": ["signing.pem"]},
            "institution": [self.institution(self.hospital), self.institution(self.pharmacy)],
            "signer": [],
            "denied": [],
        }
        self.write_certificate("transport.pem", self.region.transport.certificate)
        self.write_certificate("signing.pem", self.region.signing.certificate)
        self.sign_for(self.region.platform, "platform", "", SIGNER_ROLE_PLATFORM)
        self.sign_for(self.hospital, "H", "", SIGNER_ROLE_HOSPITAL_SEAL)
        self.sign_for(self.hospital, "D1", "D1", SIGNER_ROLE_PRESCRIBER)
        self.sign_for(self.pharmacy, "A1", "A1", SIGNER_ROLE_REVIEWING_PHARMACIST)
        self.write_pair("registry", self.region.registry)

    @property
    def file(self) -> Path:
        return self.folder / "registry.toml"

    @property
    def out(self) -> Path:
        return self.folder / f"{CODE}.trustlist"

    @property
    def pin(self) -> str:
        return self.region.registry.sha256.hex()

    def institution(self, holder: CallerName) -> Tables:
        entry = self.region.entry(holder)
        tier = {"tier": 3} if holder.kind == "hospital" else {}
        return {
            "code": entry.institution_code,
            "kind": str(holder.kind),
            "name": entry.name,
            "phone": entry.phone,
            "designated": True,
            **tier,
        }

    def sign_for(self, holder: CallerName, name: str, person: str, role: Role) -> Credential:
        """Issue a signing certificate, write it and list it, in the file and in the region."""
        credential = (
            self.region.person(holder, person, role) if person else self.region.seal(holder)
        )
        self.write_certificate(f"{name}.pem", credential.certificate)
        entry = {
            "certificate": f"{name}.pem",
            "institution": holder.institution_code,
            "roles": [ROLE_WORDS[role]],
            "display_name": person or "seal",
        }
        self.tables["signer"].append({**entry, "person_code": person} if person else entry)
        return credential

    def write_certificate(self, name: str, certificate: Any) -> Path:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return path

    def write_pair(self, name: str, credential: Credential, password: bytes | None = None) -> None:
        self.write_certificate(f"{name}.pem", credential.certificate)
        protection: KeySerializationEncryption = (
            BestAvailableEncryption(password) if password else NoEncryption()
        )
        key = self.folder / f"{name}.key"
        key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
        key.chmod(0o600)

    def save(self) -> None:
        self.file.write_text("\n".join(toml(self.tables)), encoding="utf-8")

    def run(self, *arguments: str | Path) -> Result:
        return CliRunner().invoke(cli_registry.registry, list(map(str, arguments)))

    def check(self) -> Result:
        self.save()
        return self.run("check", self.file)

    def problems(self) -> dict[str, str]:
        """What check finds wrong, by key; it must refuse the file."""
        result = self.check()
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        lines = [line.removeprefix(f"{self.file}: ") for line in result.stderr.splitlines()]
        return dict(line.split(": ", 1) for line in lines if not line.startswith("note: "))

    def sign(self, *arguments: str | Path) -> Result:
        self.save()
        key, certificate = self.folder / "registry.key", self.folder / "registry.pem"
        options = ("--key", key, "--certificate", certificate, "--out", self.out)
        return self.run("sign", self.file, *options, *arguments)

    def signed(self) -> TrustList:
        """Sign the file as it is now and read the list as a server would."""
        result = self.sign()
        assert result.exit_code == 0, result.output
        return self.content()

    def content(self) -> TrustList:
        store = TrustStore({CODE: self.pin})
        statement = read_trust_list(self.out.read_bytes())
        store.offer(statement, self.now)
        return TrustList.FromString(statement.payload)


def toml(tables: Tables, path: str = "") -> list[str]:
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in tables.items()
        if not isinstance(value, dict) and not holds_tables(value)
    ]
    for key, value in tables.items():
        if isinstance(value, dict):
            lines += [f"[{path}{key}]", *toml(value, f"{path}{key}.")]
        elif holds_tables(value):
            for each in value:
                lines += [f"[[{path}{key}]]", *toml(each, f"{path}{key}.")]
    return lines


def holds_tables(value: object) -> bool:
    return isinstance(value, list) and (not value or isinstance(value[0], dict))


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    office = Office(tmp_path)
    monkeypatch.setattr(cli_registry, "_now", lambda: office.now)
    return office


# init


def test_init_writes_a_template_that_check_tells_how_to_fill_in(office: Office) -> None:
    result = office.run("init", office.file)
    assert (result.exit_code, "registry check" in result.stdout) == (0, True)
    tomllib.loads(office.file.read_text("utf-8"))
    result = office.run("check", office.file)
    assert result.exit_code == 2
    for key in ("region", "name", "endpoints", "anchors.transport", "signer"):
        assert f"{office.file}: {key}: " in result.stderr


def test_the_examples_of_the_template_are_right(office: Office) -> None:
    """Uncommented and with names filled in, they pass as they stand."""
    office.run("init", office.file)
    text = office.file.read_text("utf-8").split("[anchors]")[1].split("# Certificates of either")[0]
    examples = "\n".join(
        line.removeprefix("# ").replace('"..."', '"X"')
        for line in text.splitlines()
        if line.startswith(("# [[", "# ")) and (" = " in line or "[[" in line)
    )
    tables = tomllib.loads(examples)
    (office.folder / "signers").mkdir()
    prescriber = SignerName(office.hospital, KeyPurpose.PERSON, "D350200001")
    doctor = office.region.signing.issue(str(prescriber))
    seal = office.region.signing.issue(f"{office.region.platform}/seal")
    office.write_certificate("signers/D350200001.pem", doctor.certificate)
    office.write_certificate("signers/platform.pem", seal.certificate)
    office.tables |= {"institution": tables["institution"], "signer": tables["signer"]}
    assert office.check().exit_code == 0


def test_init_never_overwrites(office: Office) -> None:
    office.save()
    before = office.file.read_bytes()
    result = office.run("init", office.file)
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert office.file.read_bytes() == before


# check


def test_a_complete_file_is_fit_to_be_signed(office: Office) -> None:
    result = office.check()
    assert result.exit_code == 0, result.output
    assert result.stdout == f"ok: region {CODE}, 2 institutions, 4 signers, 0 denied\n"
    assert result.stderr == ""


def test_a_certificate_that_expires_soon_is_noted(office: Office) -> None:
    office.now = NOW + timedelta(days=1)
    result = office.check()
    assert result.exit_code == 0
    assert result.stderr.count("note: ") == 6
    assert "signer[D1.pem]: expires on 2026-04-01; have a new one issued" in result.stderr


def institution(office: Office, **changes: object) -> None:
    office.tables["institution"][0].update(changes)


def signer(office: Office, number: int, **changes: object) -> None:
    office.tables["signer"][number].update(changes)


def of_another_person(office: Office) -> None:
    name = SignerName(office.hospital, KeyPurpose.PERSON, "D2")
    office.write_certificate("D1.pem", office.region.signing.issue(str(name)).certificate)


def of_another_region(office: Office) -> None:
    name = f"spiffe://350500.rxoutflow/hospital/{office.hospital.institution_code}/seal"
    office.write_certificate("H.pem", office.region.signing.issue(name).certificate)


def from_another_authority(office: Office) -> None:
    name = f"{office.hospital}/seal"
    office.write_certificate("H.pem", Authority.create("else").issue(name).certificate)


def with_a_tls_certificate(office: Office) -> None:
    office.write_certificate("H.pem", office.region.client(office.hospital).certificate)


def with_a_key_of_an_algorithm_not_listed(office: Office) -> None:
    office.tables["algorithms"] = ["ecdsa_p256_sha256"]
    name = f"{office.hospital}/seal"
    office.write_certificate("H.pem", office.region.signing.issue(name, key=ed()).certificate)


def with_one_authority_for_both(office: Office) -> None:
    office.write_certificate("transport.pem", office.region.signing.certificate)


def with_a_leaf_as_anchor(office: Office) -> None:
    office.write_certificate("transport.pem", office.region.registry.certificate)


def with_one_code_for_two_people(office: Office) -> None:
    office.sign_for(office.pharmacy, "A2", "D1", SIGNER_ROLE_REVIEWING_PHARMACIST)
    signer(office, -1, display_name="somebody else")


def without_a_platform(office: Office) -> None:
    office.tables["signer"] = office.tables["signer"][1:]


@pytest.mark.parametrize(
    ("key", "edit"),
    [
        ("validity_days", lambda o: o.tables.update(validity_days=0)),
        ("validity_days", lambda o: o.tables.update(validity_days=398)),
        ("algorithms", lambda o: o.tables.update(algorithms=["rsa"])),
        ("algorithms", lambda o: o.tables.update(algorithms=[])),
        ("algorithms", lambda o: o.tables.update(algorithms=["ed25519"] * 2 + ["sm2_sm3"])),
        ("endpoints", lambda o: o.tables.update(endpoints=["platform.example"])),
        ("endpoints", lambda o: o.tables.pop("endpoints")),
        ("signers", lambda o: o.tables.update(signers=1)),
        (
            "institution[H35020000001].agreement.quota_fen",
            lambda o: institution(o, agreement={**AGREEMENT, "quota_fen": 0}),
        ),
        (
            "institution[H35020000001].agreement.period",
            lambda o: institution(o, agreement={**AGREEMENT, "period": "week"}),
        ),
        (
            "institution[H35020000001].agreement.document",
            lambda o: institution(o, agreement={"quota_fen": 1, "period": "year"}),
        ),
        (
            "institution[H35020000001].agreement.scope",
            lambda o: institution(o, agreement={**AGREEMENT, "scope": ["other"]}),
        ),
        ("institution[H35020000001].phon", lambda o: institution(o, phon="0592-1")),
        ("institution[H35020000001].phone", lambda o: institution(o, phone="张三")),
        ("institution[H35020000001].tier", lambda o: institution(o, tier=4)),
        ("institution[H35020000001].tier", lambda o: o.tables["institution"][0].pop("tier")),
        ("institution[H35020000001].status", lambda o: institution(o, status="closed")),
        ("institution[H35020000001].designated", lambda o: institution(o, designated="yes")),
        ("institution[H35020000001].name", lambda o: institution(o, name="\u001b[31mred")),
        ("institution[P35020000002].tier", lambda o: o.tables["institution"][1].update(tier=1)),
        (
            "institution[H35020000001].code",
            lambda o: o.tables["institution"].append(o.tables["institution"][0]),
        ),
        ("signer[D1.pem].roles", lambda o: signer(o, 2, roles=["pharmacist"])),
        ("signer[D1.pem].roles", lambda o: signer(o, 2, roles=["checker"])),
        ("signer[D1.pem].person_code", lambda o: signer(o, 2, person_code="d1")),
        ("signer[D1.pem].person_code", lambda o: o.tables["signer"][2].pop("person_code")),
        ("signer[D1.pem].institution", lambda o: signer(o, 2, institution="H35020000099")),
        ("signer[D1.pem].certificate", of_another_person),
        ("signer[H.pem].certificate", of_another_region),
        ("signer[H.pem].certificate", from_another_authority),
        ("signer[H.pem].certificate", with_a_tls_certificate),
        ("signer[H.pem].certificate", with_a_key_of_an_algorithm_not_listed),
        ("signer[H.pem].certificate", lambda o: (o.folder / "H.pem").write_text("no PEM")),
        ("signer[H.pem].certificate", lambda o: (o.folder / "H.pem").unlink()),
        (
            "signer[H.pem].certificate",
            lambda o: o.tables["signer"].append(o.tables["signer"][1]),
        ),
        ("signer[A2.pem].person_code", with_one_code_for_two_people),
        ("signer", without_a_platform),
        ("anchors.transport", with_a_leaf_as_anchor),
        ("anchors.transport", lambda o: o.tables["anchors"].update(transport=["nowhere.pem"])),
        ("anchors.signing", with_one_authority_for_both),
        ("denied[#1].certificate", lambda o: o.tables["denied"].append({"reason": "lost"})),
        (
            "denied[#1].sha256",
            lambda o: o.tables["denied"].append({"reason": "lost", "sha256": "ab"}),
        ),
        ("denied[H.pem].reason", lambda o: o.tables["denied"].append({"certificate": "H.pem"})),
    ],
)  # fmt: skip
def test_each_mistake_is_named_by_its_key_with_advice_and_nothing_else_is(
    key: str, edit: Edit, office: Office
) -> None:
    edit(office)
    problems = office.problems()
    assert set(problems) == {key}
    assert any(mark in problems[key] for mark in (";", "?")), "says what to do"


def test_all_problems_are_reported_at_once(office: Office) -> None:
    institution(office, status="closed", tier=9)
    signer(office, 1, display_name="")
    office.tables["endpoints"] = []
    of_another_person(office)
    assert set(office.problems()) == {
        "institution[H35020000001].status",
        "institution[H35020000001].tier",
        "signer[H.pem].display_name",
        "signer[D1.pem].certificate",
        "endpoints",
    }


def test_anchors_that_have_all_expired_are_a_problem(office: Office) -> None:
    office.now = NOW + timedelta(days=31)
    assert set(office.problems()) == {"anchors.transport", "anchors.signing"}


def test_an_expired_certificate_stays_listed_with_a_note(office: Office) -> None:
    name = str(SignerName(office.hospital, KeyPurpose.PERSON, "D1"))
    old = office.region.signing.issue(name, end=BEGIN + timedelta(hours=1))
    office.write_certificate("D1.pem", old.certificate)
    result = office.check()
    assert result.exit_code == 0, result.output
    assert "signer[D1.pem]: expired on 2026-03-01; what it signed before" in result.stderr


@pytest.mark.parametrize("content", [b"region = ", b"\xff", None])
def test_a_file_that_is_no_toml_is_named(content: bytes | None, office: Office) -> None:
    if content is not None:
        office.file.write_bytes(content)
    result = office.run("check", office.file)
    assert result.exit_code == 2
    assert str(office.file) in result.stderr
    assert "Traceback" not in result.output


# sign


def test_a_signed_list_says_what_the_file_says(office: Office) -> None:
    content = office.signed()
    expected = TrustList()
    expected.CopyFrom(office.region.trust_list)
    expected.issue_time.FromDatetime(NOW)
    expected.expire_time.FromDatetime(NOW + timedelta(days=90))
    assert content == expected


def test_each_list_has_the_next_sequence_and_its_changes_are_told(office: Office) -> None:
    assert office.signed().sequence == 1
    institution(office, status="suspended")
    result = office.sign()
    assert "list 2 of region 350200" in result.stdout
    assert "~ institution H35020000001: status 'active' -> 'suspended'" in result.stdout
    assert office.content().sequence == 2
    assert office.content().institutions[0].status == Institution.STATUS_SUSPENDED


def test_a_sequence_may_be_skipped_but_never_repeated(office: Office) -> None:
    assert office.sign("--sequence", "7").exit_code == 0
    before = office.out.read_bytes()
    for sequence in ("7", "6", "0", "-1", "next"):
        result = office.sign("--sequence", sequence)
        assert (result.exit_code, office.out.read_bytes()) == (2, before), result.output
    assert office.signed().sequence == 8


def test_a_file_with_problems_is_not_signed(office: Office) -> None:
    office.signed()
    before = office.out.read_bytes()
    institution(office, status="closed")
    result = office.sign()
    assert result.exit_code == 2
    assert "institution[H35020000001].status: " in result.stderr
    assert office.out.read_bytes() == before
    assert not list(office.folder.glob(".*")), "nothing half written"


def test_only_the_regions_registry_signs(office: Office) -> None:
    for name, credential in {
        "seal": office.region.seal(office.region.platform),
        "other": Region.create("350500").registry,
        "tls": office.region.client(office.hospital),
    }.items():
        office.write_pair("registry", credential)
        result = office.sign()
        assert (result.exit_code, office.out.exists()) == (2, False), name
        assert f"use that of spiffe://{CODE}.rxoutflow/platform/{CODE}/registry" in result.stderr


def test_a_registry_whose_certificate_has_expired_does_not_sign(office: Office) -> None:
    name = office.region.platform
    old = office.region.signing.issue(f"{name}/registry", end=BEGIN + timedelta(hours=1))
    office.write_pair("registry", old)
    result = office.sign()
    assert result.exit_code == 2
    assert "is valid from" in result.stderr


def test_a_key_that_others_may_read_is_refused(office: Office) -> None:
    (office.folder / "registry.key").chmod(0o604)
    result = office.sign()
    assert (result.exit_code, "chmod 600" in result.stderr) == (2, True)


def test_a_key_may_have_a_password(office: Office) -> None:
    office.write_pair("registry", office.region.registry, password=b"open sesame")
    assert "password" in office.sign().stderr
    password = office.folder / "password"
    password.write_text("open sesame\n")
    password.chmod(0o600)
    assert office.sign("--key-password-file", password).exit_code == 0


def test_a_list_that_no_server_could_fetch_is_not_signed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuing, "MAX_LIST_BYTES", 500)
    result = office.sign()
    assert (result.exit_code, office.out.exists()) == (2, False)
    assert "servers fetch at most" in result.stderr


def test_a_list_of_another_region_is_never_replaced(office: Office) -> None:
    other = Region.create("350500")
    office.out.write_bytes(other.signed_list().SerializeToString())
    result = office.sign()
    assert result.exit_code == 2
    assert "region 350500" in result.stderr


def test_a_folder_that_is_not_there_is_named(office: Office) -> None:
    result = office.sign("--out", office.folder / "nowhere" / "list")
    assert (result.exit_code, "nowhere" in result.stderr) == (2, True)


# publish


def published(office: Office, *, root: str = "") -> tuple[Result, Path]:
    trust = office.folder / "trust"
    trust.mkdir(exist_ok=True)
    return office.run("publish", office.out, "--to", trust, "--root", root or office.pin), trust


def test_a_published_list_is_the_one_that_a_platform_loads(office: Office) -> None:
    office.signed()
    result, trust = published(office)
    assert result.exit_code == 0, result.output
    store = TrustStore.load(trust, {CODE: office.pin}, NOW)
    assert store.region(CODE, NOW).sequence == 1
    assert [path.name for path in trust.iterdir()] == [f"{CODE}.trustlist"]


def test_publishing_again_is_no_mistake(office: Office) -> None:
    office.signed()
    published(office)
    result, _ = published(office)
    assert (result.exit_code, "already" in result.stdout) == (0, True)


def test_a_list_of_another_registry_is_not_published(office: Office) -> None:
    office.signed()
    result, trust = published(office, root="ab" * 32)
    assert (result.exit_code, list(trust.iterdir())) == (2, [])
    assert "not signed by the pinned registry" in result.stderr


def test_a_lower_list_is_not_published(office: Office) -> None:
    office.signed()
    older = office.out.read_bytes()
    office.signed()
    _, trust = published(office)
    there = (trust / office.out.name).read_bytes()
    office.out.write_bytes(older)
    result, _ = published(office)
    assert result.exit_code == 2
    assert "is list 2, and the new one is list 1" in result.stderr
    assert (trust / office.out.name).read_bytes() == there


def test_two_lists_of_one_sequence_are_not_both_published(office: Office) -> None:
    office.signed()
    published(office)
    office.out.unlink()
    institution(office, status="suspended")
    office.signed()
    result, _ = published(office)
    assert (result.exit_code, "--sequence 2" in result.stderr) == (2, True)


def test_a_lapsed_list_is_not_published(office: Office) -> None:
    office.signed()
    office.now = NOW + timedelta(days=91)
    result, trust = published(office)
    assert (result.exit_code, list(trust.iterdir())) == (2, [])
    assert "sign a new one" in result.stderr


def test_a_list_that_was_tampered_with_is_not_published(office: Office) -> None:
    office.signed()
    office.out.write_bytes(office.out.read_bytes().replace(b"0592-0000000", b"0592-1111111"))
    result, trust = published(office)
    assert (result.exit_code, list(trust.iterdir())) == (2, [])


@pytest.mark.parametrize("root", ["", "ab", "zz" * 32])
def test_a_root_must_be_a_digest(root: str, office: Office) -> None:
    office.signed()
    result = office.run("publish", office.out, "--to", office.folder, "--root", root)
    assert (result.exit_code, "--root" in result.stderr) == (2, True)


# show and diff


def test_show_tells_what_a_list_vouches_for(office: Office) -> None:
    office.signed()
    result = office.run("show", office.out)
    assert result.exit_code == 0, result.output
    for text in ("H35020000001", "P35020000002", "30 days left", "active", "not compared"):
        assert text in result.stdout


def test_show_as_json_has_everything(office: Office) -> None:
    office.tables["denied"].append({"certificate": "H.pem", "reason": "lost"})
    office.signed()
    shown = json.loads(office.run("show", office.out, "--json", "--root", office.pin).stdout)
    assert (shown["region"], shown["sequence"]) == (CODE, 1)
    assert shown["registry_sha256"] == office.pin
    assert [each["code"] for each in shown["institutions"]] == ["H35020000001", "P35020000002"]
    (doctor,) = (each for each in shown["signers"] if each["person_code"] == "D1")
    assert (doctor["institution"], doctor["roles"]) == ("H35020000001", "prescriber")
    assert len(shown["denied"]) == 1


def test_show_takes_names_as_text_and_not_as_markup(office: Office) -> None:
    institution(office, name="[red]医院[/red]")
    office.signed()
    assert "[red]" in office.run("show", office.out).stdout


def test_show_lists_who_signs_for_an_institution(office: Office) -> None:
    office.signed()
    result = office.run("show", office.out, "--institution", "H35020000001")
    assert "D1" in result.stdout
    assert "A1" not in result.stdout


def test_diff_has_one_line_for_each_change(office: Office) -> None:
    office.signed()
    old = office.folder / "old.trustlist"
    old.write_bytes(office.out.read_bytes())
    institution(office, phone="0592-5550009")
    office.tables["endpoints"] = ["new.example:8443"]
    office.tables["signer"].pop()
    lost = office.tables["signer"][1]["certificate"]
    office.tables["denied"].append({"certificate": lost, "reason": "lost"})
    office.write_certificate("new-ca.pem", Authority.create("new").certificate)
    office.tables["anchors"]["transport"].append("new-ca.pem")
    office.signed()
    lines = office.run("diff", old, office.out).stdout.splitlines()
    heads = [line.split(":")[0].rsplit(" ", 1)[0] for line in lines]
    assert len(lines) == 6, lines
    assert lines[0].startswith("+ transport anchor ")
    assert "~ institution H35020000001: phone '0592-0000000' -> '0592-5550009'" in lines
    assert "- endpoint platform.350200.example:8443" in lines
    assert "+ endpoint new.example:8443" in lines
    assert "- signer" in heads
    assert "+ denied" in heads


def test_an_agreement_is_listed_and_its_change_is_told(office: Office) -> None:
    institution(office, agreement=AGREEMENT, scope=["other"])
    first = next(each for each in office.signed().institutions if each.HasField("agreement"))
    assert first.institution_code == "H35020000001"
    terms = Agreement(document="协议〔2026〕1号", quota_fen=5, period=Agreement.PERIOD_MONTH)
    assert first.agreement == terms
    old = office.folder / "old.trustlist"
    old.write_bytes(office.out.read_bytes())
    institution(office, agreement={**AGREEMENT, "quota_fen": 6}, scope=["outpatient_pool"])
    office.signed()
    (line,) = office.run("diff", old, office.out).stdout.splitlines()
    assert "5 fen a month' -> '协议〔2026〕1号, 6 fen a month'" in line
    assert "scope 'other' -> 'outpatient_pool'" in line


def test_lists_that_vouch_for_the_same_do_not_differ(office: Office) -> None:
    office.signed()
    old = office.folder / "old.trustlist"
    old.write_bytes(office.out.read_bytes())
    office.signed()
    assert office.run("diff", old, office.out).stdout.startswith("nothing changed")
    assert json.loads(office.run("diff", old, office.out, "--json").stdout) == []


def test_names_of_other_regions_cannot_act_on_a_terminal(office: Office) -> None:
    other = Region.create("350500")
    old, new = office.folder / "old.trustlist", office.folder / "new.trustlist"
    old.write_bytes(other.signed_list().SerializeToString())
    other.entry(other.hospital()).name = "\x1b[2Jgone\n+ institution"
    new.write_bytes(other.signed_list(sequence=2).SerializeToString())
    output = office.run("diff", old, new).stdout
    assert "\x1b" not in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_file_that_is_no_list_is_named_without_a_traceback(
    content: bytes, office: Office
) -> None:
    office.out.write_bytes(content)
    for result in (office.run("show", office.out), office.run("diff", office.out, office.out)):
        assert result.exit_code == 2
        assert f"{office.out}: is no trust list" in result.stderr


# deny


def test_a_denial_is_appended_and_everything_else_stays(office: Office) -> None:
    office.save()
    office.file.write_text("# kept\n" + office.file.read_text())
    before = office.file.read_text()
    stolen = office.region.client(office.hospital)
    path = office.write_certificate("stolen.pem", stolen.certificate)
    result = office.run("deny", office.file, "--certificate", path, "--reason", '密钥"被盗"')
    assert result.exit_code == 0, result.output
    assert office.file.read_text().startswith(before.rstrip("\n"))
    office.tables = tomllib.loads(office.file.read_text())
    assert office.tables["denied"][0]["reason"] == '密钥"被盗"'
    assert list(office.signed().denied_certificate_sha256) == [stolen.sha256]


def test_denying_twice_is_no_mistake_and_adds_nothing(office: Office) -> None:
    office.save()
    arguments = ("deny", office.file, "--certificate", office.folder / "H.pem", "--reason", "lost")
    assert office.run(*arguments).exit_code == 0
    once = office.file.read_bytes()
    result = office.run(*arguments)
    assert (result.exit_code, "already" in result.stdout) == (0, True)
    assert office.file.read_bytes() == once


def test_a_certificate_of_another_region_cannot_be_denied_here(office: Office) -> None:
    office.save()
    before = office.file.read_bytes()
    other = Region.create("350500")
    path = office.write_certificate("other.pem", other.client(other.hospital()).certificate)
    result = office.run("deny", office.file, "--certificate", path, "--reason", "lost")
    assert (result.exit_code, "another region" in result.stderr) == (2, True)
    assert office.file.read_bytes() == before


def test_a_name_in_a_certificate_cannot_write_into_the_file(office: Office) -> None:
    office.save()
    name = f"spiffe://{CODE}.rxoutflow/x\n[[institution]]\n#"
    path = office.write_certificate("odd.pem", office.region.signing.issue(name).certificate)
    result = office.run("deny", office.file, "--certificate", path, "--reason", "lost")
    assert result.exit_code == 0, result.output
    assert len(tomllib.loads(office.file.read_text())["institution"]) == 2


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 101, "\x1b[31m"])
def test_a_reason_must_be_one_line(reason: str, office: Office) -> None:
    office.save()
    path = office.folder / "H.pem"
    result = office.run("deny", office.file, "--certificate", path, "--reason", reason)
    assert (result.exit_code, "reason" in result.stderr) == (2, True)


# the end of it


def test_a_registry_may_change_its_key_while_both_are_pinned(office: Office) -> None:
    """Servers pin both; the list that the new key signs follows the one that the old key signed."""
    office.signed()
    store = TrustStore({CODE: office.pin})
    store.offer(read_trust_list(office.out.read_bytes()), NOW)
    old_pin = office.pin
    name = SignerName(office.region.platform, KeyPurpose.REGISTRY)
    office.region.registry = office.region.signing.issue(str(name))
    office.write_pair("registry", office.region.registry)
    result = office.sign()
    assert "signed by another registry certificate" in result.stderr
    both = TrustStore({CODE: f"{old_pin} {office.pin}"})
    assert office.content().sequence == 2
    both.offer(read_trust_list(office.out.read_bytes()), NOW)
    assert both.region(CODE, NOW).sequence == 2
