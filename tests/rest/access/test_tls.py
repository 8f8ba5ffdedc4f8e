"""Certificates: what is wrong with them is named, and what is replaced is used."""

import contextlib
import logging
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from authority import Authority
from infold.errors import ConfigError
from infold.rest.access.secured import name_in
from infold.rest.access.start import scheme_of, tell_what_others_may
from infold.rest.access.tls import Certificates, TlsFiles, certificates_of, tls_files
from infold.rest.access.watched import Watched
from infold.settings import Settings


class Clock:
    now = 0.0

    def watch(self, files: TlsFiles) -> Watched:
        """Looks whenever a second has passed here, and never thinks that they are settled."""
        return Watched(files.paths, lambda: self.now, lambda: 0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def ends(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a handshake that happens in memory, the server's first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for end in (there, here):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return here, there


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The server's end."""
    return ends(server, client)[0]


def serial(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Which certificate a server shows."""
    found = ends(server, client)[1].getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def test_a_connection_is_of_today(authority: Authority) -> None:
    """TLS 1.3, and 1.2 for who cannot; HTTP/1.1, also where a client would have it otherwise."""
    context = Certificates(TlsFiles(*authority.pair())).context()
    client = authority.trusting()
    client.set_alpn_protocols(["h2", "http/1.1"])
    end = shake(context, client)
    assert (end.version(), end.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    old = authority.trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(context, old).version() == "TLSv1.2"
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


def test_a_replaced_pair_is_used_for_new_connections(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Within a second; the context of connections that are open stays as it is."""
    caplog.set_level(logging.INFO)
    files, clock = TlsFiles(*authority.pair()), Clock()
    certificates = Certificates(files, clock.watch(files))
    before, client = certificates.context(), authority.trusting()
    first = serial(before, client)
    authority.pair()
    assert certificates.context() is before
    clock.now += 1
    after = certificates.context()
    assert after is not before
    assert (serial(before, client), serial(after, client) != first) == (first, True)
    assert [record.message for record in caplog.records] == ["certificates replaced"]


def test_a_broken_pair_changes_nothing_and_is_told_once(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that comes after its certificate is waited for."""
    files, clock = TlsFiles(*authority.pair()), Clock()
    certificates = Certificates(files, clock.watch(files))
    before = certificates.context()
    other, other_key = authority.pair("other")
    other.replace(files.certificate)
    for _ in range(3):
        clock.now += 1
        assert certificates.context() is before
    other_key.replace(files.key)
    clock.now += 1
    after = certificates.context()
    assert after is not before
    files.key.unlink()
    for _ in range(3):
        clock.now += 1
        assert certificates.context() is after
    reasons = [record.reason for record in caplog.records]  # type: ignore[attr-defined]
    assert reasons == [
        f"{files.key}: is not the key of the certificate in {files.certificate}",
        f"{files.key}: cannot be read: No such file or directory",
    ]


def test_an_authority_that_is_replaced_counts_no_more(tmp_path: Path) -> None:
    """For new connections: one that is gone lets nobody in."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, theirs = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    files, clock = TlsFiles(*ours.pair(), ours.root()), Clock()
    certificates = Certificates(files, clock.watch(files))
    own = ours.both("client", common_name="ops")
    assert shake(certificates.context(), ours.trusting(own)).getpeercert()
    theirs.root().replace(files.paths[2])
    clock.now += 1
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown ca|verify failed"):
        shake(certificates.context(), ours.trusting(own))


def test_a_client_without_a_certificate_comes_in_by_the_second_port_alone(authority: Authority) -> None:
    """One that shows a wrong one, by none."""
    certificates = Certificates(TlsFiles(*authority.pair(), authority.root()))
    with pytest.raises(ssl.SSLError, match="(?i)did not return a certificate"):
        shake(certificates.context(), authority.trusting())
    assert not shake(certificates.context(is_second=True), authority.trusting()).getpeercert()
    stranger = Authority(authority.folder).both("stranger")
    for is_second in (False, True):
        with pytest.raises(ssl.SSLError, match="(?i)verify failed|unknown ca"):
            shake(certificates.context(is_second=is_second), authority.trusting(stranger))


def test_both_ports_are_alike_where_no_client_certificate_is_asked(authority: Authority) -> None:
    """One context serves them."""
    certificates = Certificates(TlsFiles(*authority.pair()))
    assert certificates.context() is certificates.context(is_second=True)


def wrong(files: TlsFiles) -> str:
    with pytest.raises(ConfigError) as refused:
        Certificates(files)
    return str(refused.value)


def test_each_mistake_names_its_file(authority: Authority, tmp_path: Path) -> None:
    """Of two or three, the one to look at."""
    certificate, key = authority.pair()
    _, other_key = authority.pair("other")
    text, none = tmp_path / "text", tmp_path / "none"
    text.write_text("hello")
    assert wrong(TlsFiles(none, key)) == f"{none}: cannot be read: No such file or directory"
    assert wrong(TlsFiles(certificate, none)) == f"{none}: cannot be read: No such file or directory"
    assert wrong(TlsFiles(text, key)) == f"{text}: holds no certificate in PEM"
    assert wrong(TlsFiles(key, key)) == f"{key}: holds no certificate in PEM"
    assert wrong(TlsFiles(certificate, certificate)) == f"{certificate}: holds no private key in PEM"
    assert wrong(TlsFiles(certificate, other_key)).startswith(
        f"{other_key}: is not the key of the certificate"
    )
    assert wrong(TlsFiles(certificate, key, text)).startswith(f"{text}: holds no certificates")
    assert wrong(TlsFiles(certificate, key, tmp_path)) == f"{tmp_path}: is no file"
    cut = tmp_path / "cut"
    cut.write_bytes(certificate.read_bytes()[:-300])
    assert str(cut) in wrong(TlsFiles(cut, key))


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(authority: Authority, tmp_path: Path) -> None:
    """Nobody sits at the terminal of a service."""
    certificate, key = authority.pair()
    locked = tmp_path / "locked.key"
    opened = serialization.load_pem_private_key(key.read_bytes(), None)
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(opened.private_bytes(*how, serialization.BestAvailableEncryption(b"open sesame")))
    assert wrong(TlsFiles(certificate, locked)) == (
        f"{locked}: is encrypted; a key without a passphrase is needed"
    )


def test_a_certificate_and_its_key_may_be_one_file(authority: Authority) -> None:
    """As some tools write them."""
    certificates = certificates_of(Settings(tls_cert=authority.both("server")))
    assert certificates is not None
    assert shake(certificates.context(), authority.trusting()).version() == "TLSv1.3"


def test_less_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    """Whoever names an authority and no certificate would serve everybody, in the clear."""
    assert tls_files(Settings()) is None
    assert certificates_of(Settings()) is None
    for name in ("tls_key", "tls_client_ca"):
        with pytest.raises(ConfigError, match=f"INFOLD_{name.upper()}: is of no use without INFOLD_TLS_CERT"):
            tls_files(Settings(**{name: tmp_path / "x"}))


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (0o600, None),
        (0o400, None),
        (0o640, "read"),
        (0o604, "read"),
        (0o622, "written"),
        (0o666, "read and written"),
    ],
)
def test_files_that_others_may_look_into_are_warned_of(
    authority: Authority, caplog: pytest.LogCaptureFixture, mode: int, told: str | None
) -> None:
    """Of keys, and of the private key; a certificate is for everybody."""
    certificate, key = authority.pair()
    keys = authority.root("keys.toml")
    certificate.chmod(0o666)
    for path in (key, keys):
        path.chmod(mode)
    tell_what_others_may(Settings(api_keys=keys, tls_cert=certificate, tls_key=key))
    found = [(record.file, record.may_be) for record in caplog.records]  # type: ignore[attr-defined]
    assert found == ([] if told is None else [(str(keys), told), (str(key), told)])


def test_addresses_say_how_they_are_asked(tmp_path: Path) -> None:
    """In the line that tells that requests are answered."""
    assert scheme_of(Settings()) == "http"
    assert scheme_of(Settings(tls_cert=tmp_path / "c")) == "https"


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subject": ((("organizationName", "o"),), (("commonName", "ops"),)), "subjectAltName": ()}, "ops"),
        ({"subject": (), "subjectAltName": (("DNS", "a.example.org"), ("DNS", "b"))}, "a.example.org"),
        ({"subject": (), "serialNumber": "0A"}, "serial 0A"),
        ({}, "serial unknown"),
        ({"subject": ((("commonName", "n" * 500),),)}, "n" * 128),
    ],
)  # fmt: skip
def test_a_certificate_names_somebody(certificate: dict[str, object], name: str) -> None:
    """For the audit."""
    assert name_in(certificate) == name
