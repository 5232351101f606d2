"""The local Redshift's certificate, and its words to a login that it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import stat
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from local.redshift import sign_in, tls
from local.redshift.wire import message

NOW = datetime.now(UTC)


def shaken_hands(data: Path, host: str, **options: bool) -> str:
    """Let a client that trusts the authority in `data` shake hands with the server; return the protocol's version."""
    client = ssl.create_default_context(cafile=str(tls.Files.of(data).authority))
    if options.get("strict"):
        client.verify_flags |= ssl.VERIFY_X509_STRICT
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
    server_side = tls.context(data).wrap_bio(*ends[0], server_side=True)
    client_side = client.wrap_bio(*ends[1], server_hostname=host)
    for _ in range(6):
        for side, (own, other) in ((client_side, (ends[1], ends[0])), (server_side, (ends[0], ends[1]))):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            other[0].write(own[1].read())
    return str(client_side.version())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_who_trusts_the_authority_trusts_the_server_under_each_of_its_names(tmp_path: Path, host: str) -> None:
    tls.context(tmp_path)
    assert shaken_hands(tmp_path, host, strict=True) == "TLSv1.3"


def test_another_name_is_not_trusted(tmp_path: Path) -> None:
    tls.context(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        shaken_hands(tmp_path, "example.com")


def test_the_files_are_their_owners_only_and_no_authoritys_key_is_kept(tmp_path: Path) -> None:
    tls.context(tmp_path)
    files = sorted((tmp_path / tls.FOLDER).iterdir())
    assert [file.name for file in files] == ["ca.pem", "server.key", "server.pem"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    authority, certificate = (
        x509.load_pem_x509_certificate((tmp_path / "tls" / name).read_bytes()) for name in ("ca.pem", "server.pem")
    )
    assert certificate.public_key() != authority.public_key()
    permitted = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    assert permitted is not None
    assert {str(name.value) for name in permitted} == {"localhost", "127.0.0.1/32", "::1/128"}


def test_a_certificate_stays_until_it_is_about_to_end(tmp_path: Path) -> None:
    tls.context(tmp_path, NOW)
    first = tls.Files.of(tmp_path).certificate.read_text()
    tls.context(tmp_path, NOW + timedelta(days=3600))
    assert tls.Files.of(tmp_path).certificate.read_text() == first
    tls.context(tmp_path, NOW + timedelta(days=3649, hours=12))
    assert tls.Files.of(tmp_path).certificate.read_text() != first


@pytest.mark.parametrize("name", ["ca.pem", "server.key", "server.pem"])
def test_a_file_that_is_gone_broken_or_anothers_is_made_anew(tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    tls.context(other)
    for harm in ("", "no certificate", (other / "tls" / name).read_text(), None):
        tls.context(tmp_path)
        file = tmp_path / "tls" / name
        file.unlink() if harm is None else file.write_text(harm)
        tls.context(tmp_path)
        assert shaken_hands(tmp_path, "localhost")


# Words


def error(code: str, text: str) -> bytes:
    return b"SFATAL\x00VFATAL\x00C" + code.encode() + b"\x00M" + text.encode() + b"\x00\x00"


def test_a_refused_login_has_redshifts_code() -> None:
    words = 'password authentication failed for user "ann"'
    assert sign_in.refused(error("28P01", words), "ann", lambda _user: True) == error("28000", words)
    assert sign_in.refused(error("28P01", words), "IAM:ann", lambda _user: False) == error("28000", words)


@pytest.mark.parametrize("user", ["IAM:ann", "IAMR:runner"])
def test_an_expired_temporary_login_is_told_so(user: str) -> None:
    told = sign_in.refused(error("28P01", "password authentication failed"), user, lambda name: name == user)
    assert told == error("28000", "IAM Authentication token has expired")


def test_other_errors_of_a_login_are_told_as_they_are() -> None:
    body = error("3D000", 'database "x" does not exist')
    assert sign_in.refused(body, "IAM:ann", lambda _user: True) == body


def test_a_client_without_tls_is_told_what_the_service_tells() -> None:
    text = sign_in.without_tls(("127.0.0.1", 4711), {"user": "ann", "database": "dev"})
    assert text == 'no pg_hba.conf entry for host "127.0.0.1", user "ann", database "dev", SSL off'


# The relay


class Sent:
    """A writer that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        return


def relayed(from_server: bytes, from_client: bytes) -> tuple[bool, bytes, bytes]:
    """Return what the relay says, and what client and server got."""

    async def run() -> tuple[bool, bytes, bytes]:
        client, server = asyncio.StreamReader(), asyncio.StreamReader()
        for reader, data in ((client, from_client), (server, from_server)):
            reader.feed_data(data)
            reader.feed_eof()
        to_client, to_server = Sent(), Sent()
        ends: list[Any] = [(client, to_client), (server, to_server)]
        done = await sign_in.relay(ends[0], ends[1], lambda body: body.upper())
        return done, to_client.data, to_server.data

    return asyncio.run(run())


CHALLENGE, WELCOME = message(b"R", struct.pack("!i", 5) + b"salt"), message(b"R", struct.pack("!i", 0))
PASSWORD = message(b"p", b"md5x\x00")


def test_a_login_is_relayed_until_it_is_accepted_and_no_further() -> None:
    assert relayed(CHALLENGE + WELCOME + b"Z....", PASSWORD + b"Q....") == (True, CHALLENGE + WELCOME, PASSWORD)
    assert relayed(WELCOME, b"") == (True, WELCOME, b"")


def test_a_refusal_is_put_into_other_words_and_ends_the_login() -> None:
    refusal = message(b"E", b"no\x00")
    assert relayed(CHALLENGE + refusal, PASSWORD) == (False, CHALLENGE + message(b"E", b"NO\x00"), PASSWORD)


def test_a_server_that_hangs_up_or_talks_nonsense_ends_the_login() -> None:
    for data in (b"", b"R\x00\x00", b"R\x7f\xff\xff\xff", b"R\x00\x00\x00\x01"):
        assert relayed(data, b"") == (False, b"", b"")


def test_a_client_that_goes_away_ends_it_too() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        relayed(CHALLENGE, b"p\x00\x00")
