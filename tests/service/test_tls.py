"""TLS of the service: what does not go together is told before the start; with it nothing is said in the clear."""

import http.client
import inspect
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.core.errors import SettingsError
from components.service.settings import ServiceSettings
from components.service.tls import PASSWORD, tls_options
from tests.service.conftest import Server, png

DAY = timedelta(days=1)


def certificate(folder: Path, name: str, begins=-1, ends=1, password: bytes | None = None) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and 127.0.0.1, from *begins* to *ends* days from now, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    said = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(said).issuer_name(said).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now + begins * DAY)
    made = made.not_valid_after(now + ends * DAY).add_extension(names, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signed = made.sign(key, hashes.SHA256())
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    coding = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(coding))
    (folder / f"{name}.key").write_bytes(key.private_bytes(coding, serialization.PrivateFormat.PKCS8, locked))
    return folder / f"{name}.pem", folder / f"{name}.key"


def options(pair, **more):
    return tls_options(ServiceSettings(certificate=str(pair[0]), private_key=str(pair[1]), **more))


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.delenv(f"{PASSWORD}_FILE", raising=False)


def test_without_a_certificate_there_is_no_tls():
    assert tls_options(ServiceSettings()) == {}


@pytest.mark.parametrize("given", [{"certificate": "a"}, {"private_key": "a"}, {"client_authority": "a"}])
def test_half_a_pair_is_no_setting(given):
    with pytest.raises(SettingsError, match="go together"):
        ServiceSettings(**given)


def test_a_pair_and_an_authority_are_what_uvicorn_takes(tmp_path):
    pair = certificate(tmp_path, "line")
    found = options(pair, client_authority=str(pair[0]))
    assert found["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    assert set(found) <= set(inspect.signature(uvicorn.Config).parameters)


def test_what_does_not_go_together_is_told_with_its_setting(tmp_path):
    one, other = certificate(tmp_path, "one"), certificate(tmp_path, "other")
    (tmp_path / "text").write_text("no certificate")
    for pair, said in (
        ((one[0], other[1]), "do not go together"),
        ((tmp_path / "text", one[1]), "do not go together"),
        ((tmp_path / "nowhere", one[1]), r"service\.certificate: .* cannot be read"),
        ((one[0], tmp_path / "nowhere"), r"service\.private_key: .* cannot be read"),
        (certificate(tmp_path, "old", -3, -2), "have it renewed"),
        (certificate(tmp_path, "young", 1, 2), "have it renewed"),
    ):
        with pytest.raises(SettingsError, match=said):
            options(pair)
    with pytest.raises(SettingsError, match=r"client_authority .*is none"):
        options(one, client_authority=str(tmp_path / "text"))


def test_a_locked_key_is_opened_by_the_environment_and_nobody_is_asked(tmp_path, monkeypatch):
    pair = certificate(tmp_path, "locked", password=b"s3cret")
    with pytest.raises(SettingsError, match=PASSWORD):
        options(pair)
    monkeypatch.setenv(PASSWORD, "wr0ng")
    with pytest.raises(SettingsError, match=PASSWORD) as told:
        options(pair)
    assert "wr0ng" not in str(told.value)
    monkeypatch.delenv(PASSWORD)
    (tmp_path / "password").write_text("s3cret\n")
    monkeypatch.setenv(f"{PASSWORD}_FILE", str(tmp_path / "password"))
    assert options(pair)["ssl_keyfile_password"] == "s3cret"


def answered(connection):
    connection.request("GET", "/healthz")
    return connection.getresponse().status


class Secure(Server):
    """A server that is spoken to by TLS, as *context* says."""

    context: ssl.SSLContext

    def connection(self, timeout):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context)


def test_the_service_speaks_tls_alone_and_lets_in_who_has_a_certificate(bundle, tmp_path):
    line, client = certificate(tmp_path, "line"), certificate(tmp_path, "client")
    files = {"certificate": str(line[0]), "private_key": str(line[1]), "client_authority": str(client[0])}
    server = Secure(tmp_path, str(bundle), str(tmp_path / "store"), files)
    server.context = ssl.create_default_context(cafile=str(line[0]))
    server.context.load_cert_chain(*client)
    try:
        server.start()
        assert server.score(png(1))[0] == 200
        stranger = ssl.create_default_context(cafile=str(line[0]))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=stranger)
        with pytest.raises((OSError, http.client.HTTPException)):
            answered(connection)
        plain = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        with pytest.raises((OSError, http.client.HTTPException)):
            answered(plain)
        assert "https://" in (tmp_path / "service.log").read_text()
    finally:
        server.stop()
