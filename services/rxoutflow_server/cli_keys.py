"""``keys``: make a key with a request for its certificate, and look at what came back.

A private key is written for its owner alone and never leaves the folder; the request goes to the
authority of the region, transport or signing, which decides what it certifies. Nothing here issues
certificates, and nothing is overwritten unless that is asked for. Whatever cannot be done ends with
one sentence and exit status 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, TypeVar

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rxoutflow.certificates import certificate_sha256
from rxoutflow.identity import (
    CallerKind,
    CallerName,
    IdentityError,
    KeyPurpose,
    SignerName,
    caller_name,
    signer_name,
)
from rxoutflow.passwords import PasswordSource, PasswordUnusable
from rxoutflow.statements import FileSigner, SignerUnusable
from rxoutflow.statements.algorithms import KeyUnsupported, verification_key
from rxoutflow.statements.signers import read_certificates
from rxoutflow.v1.statement_pb2 import (
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256,
    SIGNATURE_ALGORITHM_ED25519,
    SIGNATURE_ALGORITHM_SM2_SM3,
)
from rxoutflow_server.devpki import (
    BuiltInKey,
    leaf_key_usage,
    make_private_folder,
    write_private_file,
)
from rxoutflow_server.transport.channels import edge_server_name, platform_server_name

Name: TypeAlias = CallerName | SignerName
_Names = TypeVar("_Names", x509.SubjectAlternativeName, x509.ExtendedKeyUsage)

_ALGORITHMS = {
    SIGNATURE_ALGORITHM_ECDSA_P256_SHA256: "P-256",
    SIGNATURE_ALGORITHM_ED25519: "Ed25519",
    SIGNATURE_ALGORITHM_SM2_SM3: "SM2",
}
_PURPOSES = {
    KeyPurpose.SEAL: "the seal",
    KeyPurpose.REGISTRY: "the registry",
    KeyPurpose.PERSON: "a person",
}
_USES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS client",
}


class KeyProblem(click.ClickException):
    """A key, certificate or request cannot be made or used."""

    exit_code = 2


@click.group("keys")
def keys_group() -> None:
    """Make keys and requests for certificates, and check certificates."""


_password_file = click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File with the password of the private key.",
)


@keys_group.command()
@click.option("--name", required=True, help="The name to certify: spiffe://<region>.rxoutflow/...")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--algorithm", type=click.Choice(("p256", "ed25519")), default="p256")
@click.option("--server", is_flag=True, help="For TLS: the key is a server's; adds its host name.")
@_password_file
@click.option("--force", is_flag=True, help="Replace a key and a request that are there.")
def request(
    name: str,
    folder: Path,
    algorithm: str,
    server: bool,
    password_file: Path | None,
    force: bool,
) -> None:
    """Make a private key, and a PKCS#10 request for its certificate."""
    holder = _parse_name(name)
    key = _new_key(holder, algorithm)
    csr = _request(holder, key, server=server)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(password_file))
    key_file, csr_file = (folder / f"{_stem(holder)}{suffix}" for suffix in (".key", ".csr"))
    _write({key_file: private, csr_file: csr.public_bytes(Encoding.PEM)}, force=force)
    click.echo(f"private key  {key_file}\nrequest      {csr_file}")
    authority = "signing" if isinstance(holder, SignerName) else "transport"
    click.echo(f"Send the request to the region's {authority} authority; keep the key.", err=True)


@keys_group.command()
@click.argument("certificate", metavar="CERT", type=click.Path(path_type=Path))
def show(certificate: Path) -> None:
    """Tell whom a certificate names, what for, how long, and its SHA-256."""
    leaf, *intermediates = _certificates(certificate)
    rows = [*_described(certificate, leaf), ("intermediates", str(len(intermediates)))]
    width = max(len(label) for label, _ in rows) + 2
    for label, value in rows:
        click.echo(f"{label:{width}}{value}")


@keys_group.command()
@click.argument("certificate", metavar="CERT", type=click.Path(path_type=Path))
@click.argument("key", metavar="KEY", type=click.Path(path_type=Path))
@_password_file
def check(certificate: Path, key: Path, password_file: Path | None) -> None:
    """Check that a key is the certificate's, and that name, kind and validity are in order."""
    try:
        signer = FileSigner.load(certificate, key, PasswordSource(password_file).read())
    except (SignerUnusable, PasswordUnusable) as error:
        raise KeyProblem(str(error)) from None
    leaf = _certificates(certificate)[0]
    name = _named(certificate, leaf)
    if isinstance(name, CallerName) and signer.algorithm != SIGNATURE_ALGORITHM_ECDSA_P256_SHA256:
        raise KeyProblem(f"{certificate}: a TLS key must be P-256; make one with: keys request")
    if (state := _state(leaf)) is not None:
        raise KeyProblem(f"{certificate}: is {state}; have one issued that is valid")
    click.echo(f"ok: {name}, until {leaf.not_valid_after_utc:%Y-%m-%d}")


def _parse_name(text: str) -> Name:
    try:
        return SignerName.parse(text)
    except IdentityError:
        pass
    try:
        return CallerName.parse(text)
    except IdentityError as error:
        raise KeyProblem(
            f"--name: {error}; a signing key's name goes on with /seal, /registry or /person/<code>"
        ) from None


def _new_key(holder: Name, algorithm: str) -> BuiltInKey:
    if algorithm == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if isinstance(holder, CallerName):
        raise KeyProblem("--algorithm: TLS keys are P-256; only signing keys may be others")
    return ed25519.Ed25519PrivateKey.generate()


def _encryption(password_file: Path | None) -> KeySerializationEncryption:
    try:
        password = PasswordSource(password_file).read()
    except PasswordUnusable as error:
        raise KeyProblem(f"--password-file: {error}") from None
    return BestAvailableEncryption(password) if password else NoEncryption()


def _request(holder: Name, key: BuiltInKey, *, server: bool) -> x509.CertificateSigningRequest:
    host_names = [x509.DNSName(each) for each in _host_names(holder, server=server)]
    names = [x509.UniformResourceIdentifier(str(holder)), *host_names]
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _stem(holder))]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(leaf_key_usage(), critical=True)
    )
    if isinstance(holder, CallerName):
        serves = [ExtendedKeyUsageOID.SERVER_AUTH] if host_names else []
        uses = x509.ExtendedKeyUsage([*serves, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(uses, critical=False)
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm)


def _host_names(holder: Name, *, server: bool) -> list[str]:
    """What a server's certificate is known by; a platform's always is a server's."""
    match holder:
        case CallerName(kind=CallerKind.PLATFORM):
            return [platform_server_name(holder.region_code)]
        case CallerName(kind=CallerKind.HOSPITAL | CallerKind.PHARMACY) if server:
            return [edge_server_name(holder.region_code, holder.institution_code)]
        case _ if server:
            raise KeyProblem("--server: only platforms, hospitals and pharmacies run servers")
        case _:
            return []


def _stem(holder: Name) -> str:
    """What files and requests are called: codes and never names of people."""
    if isinstance(holder, CallerName):
        return f"{holder.institution_code}-tls"
    return f"{holder.institution.institution_code}-{holder.person_code or holder.purpose}"


def _write(contents: Mapping[Path, bytes], *, force: bool) -> None:
    """Write private files: all of them, or none if one is there and must not be replaced."""
    there = [file for file in contents if file.exists()]
    if there and not force:
        raise KeyProblem(f"{there[0]}: is there already; --force replaces it, and the key is lost")
    try:
        for file, content in contents.items():
            make_private_folder(file.parent)
            new = file.with_name(f".{file.name}.new")
            new.unlink(missing_ok=True)
            write_private_file(new, content)
        for file in contents:
            file.with_name(f".{file.name}.new").replace(file)
    except OSError as error:
        raise KeyProblem(f"{error.filename}: cannot be written: {error.strerror}") from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return read_certificates(path)
    except SignerUnusable as error:
        raise KeyProblem(str(error)) from None


def _named(path: Path, certificate: x509.Certificate) -> Name:
    try:
        return signer_name(certificate)
    except IdentityError:
        pass
    try:
        return caller_name(certificate)
    except IdentityError as error:
        raise KeyProblem(f"{path}: {error}") from None


def _described(path: Path, certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    name = _named(path, certificate)
    yield "name", str(name)
    yield "purpose", _purpose(name, certificate)
    yield "key", _algorithm(certificate)
    for each in _extension(certificate, x509.SubjectAlternativeName):
        if isinstance(each, x509.DNSName):
            yield "host name", each.value
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    state = _state(certificate) or "valid now"
    yield "valid", f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC ({state})"
    yield "issuer", certificate.issuer.rfc4514_string()
    yield "sha256", certificate_sha256(certificate).hex()


def _purpose(name: Name, certificate: x509.Certificate) -> str:
    if isinstance(name, SignerName):
        return f"signs statements: {_PURPOSES[name.purpose]} of a {name.institution.kind}"
    uses = [_USES[each] for each in _extension(certificate, x509.ExtendedKeyUsage) if each in _USES]
    return f"{' and '.join(uses) or 'no use'} of a {name.kind}"


def _algorithm(certificate: x509.Certificate) -> str:
    try:
        return _ALGORITHMS[verification_key(certificate).algorithm]
    except KeyUnsupported as error:
        return f"not accepted: {error}"


def _extension(certificate: x509.Certificate, kind: type[_Names]) -> Sequence[object]:
    try:
        return list(certificate.extensions.get_extension_for_class(kind).value)
    except x509.ExtensionNotFound:
        return ()


def _state(certificate: x509.Certificate) -> str | None:
    """What is wrong with the time, if anything."""
    now = datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        return "not valid yet"
    return "expired" if now > certificate.not_valid_after_utc else None
