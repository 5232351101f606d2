"""TLS for the wire: a certificate of our own, and the authority that signed it, made once in the data folder.

The authority's key is thrown away as soon as it has signed, and the authority may sign for loopback names only: a
client that trusts it trusts this one server and nobody else. Both last ten years; what has less than a day left, or
cannot be read, is made anew.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.target import write_atomically

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FOLDER = "tls"
_NAMES = ("localhost", "127.0.0.1", "::1")
_LIFE = timedelta(days=3650)
_SOON = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """Where authority, certificate and key are, all in PEM and readable by their owner only."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, data: Path) -> Files:
        """Return the files of a local Redshift that keeps its databases in `data`."""
        folder = data / FOLDER
        return cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")


def context(data: Path, now: datetime | None = None) -> ssl.SSLContext:
    """Return the server's side of TLS with the certificate in `data`, which is made unless it is there and good."""
    files = Files.of(data)
    moment = now or datetime.now(UTC)
    if not _good(files, moment):
        _make(files, moment)
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.load_cert_chain(files.certificate, files.key)
    return found


def _good(files: Files, now: datetime) -> bool:
    """Return whether all files are there, belong together and last for a while."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        authority, certificate = (
            x509.load_pem_x509_certificate(file.read_bytes()) for file in (files.authority, files.certificate)
        )
        certificate.verify_directly_issued_by(authority)
        key = load_pem_private_key(files.key.read_bytes(), password=None)
    except Exception:
        # Absent, half written or another's: whatever it is, new ones replace it.
        return False
    return key.public_key() == certificate.public_key() and certificate.not_valid_after_utc - now > _SOON


def _make(files: Files, now: datetime) -> None:
    """Make an authority and a certificate signed by it; the authority's key is kept nowhere."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    files.authority.parent.mkdir(parents=True, exist_ok=True)
    signing, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(signing, now)
    certificate = _certificate(key, signing, authority, now)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for file, content in (
        (files.key, secret),
        (files.certificate, certificate.public_bytes(Encoding.PEM)),
        (files.authority, authority.public_bytes(Encoding.PEM)),
    ):
        write_atomically(file, content.decode())
        file.chmod(0o600)


def _authority(signing: EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Goldlake local Redshift {os.urandom(4).hex()}")])
    loopback = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_network("127.0.0.1/32")),
        x509.IPAddress(ip_network("::1/128")),
    ]
    builder = _builder(name, name, signing, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    builder = builder.add_extension(x509.NameConstraints(loopback, None), critical=True)
    return builder.sign(signing, hashes.SHA256())


def _certificate(
    key: EllipticCurvePrivateKey, signing: EllipticCurvePrivateKey, authority: x509.Certificate, now: datetime
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    hosts = [x509.DNSName(host) if host == "localhost" else x509.IPAddress(ip_address(host)) for host in _NAMES]
    builder = _builder(name, authority.subject, key, now)
    builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    return builder.add_extension(issued_by, critical=False).sign(signing, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    """Return what every certificate has. It is good from yesterday on: a container's clock may be behind."""
    from cryptography import x509

    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _SOON).not_valid_after(now + _LIFE)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
