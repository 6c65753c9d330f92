"""TLS of the service: what uvicorn is given, looked at before anything starts."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.core.errors import SettingsError
from components.core.secret import secret
from components.service.settings import ServiceSettings

PASSWORD = "LOUPE_TLS_PASSWORD"


def tls_options(settings: ServiceSettings) -> dict[str, Any]:
    """Certificate, key and the authority of clients as uvicorn's options; none without a certificate.

    Raises SettingsError for files that are not there, do not fit each other, or have run out.
    """
    if not settings.certificate:
        return {}
    password = secret(PASSWORD)
    options: dict[str, Any] = {"ssl_certfile": settings.certificate, "ssl_keyfile": settings.private_key}
    _require_files(settings)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A function, since without one OpenSSL would ask the terminal for the password.
        context.load_cert_chain(settings.certificate, settings.private_key, lambda: password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(
            f"service.certificate {settings.certificate} and service.private_key do not go together ({_said(error)}); "
            f"give PEM files of one pair, and the key's password in {PASSWORD}"
        ) from None
    _require_valid(Path(settings.certificate))
    if settings.client_authority:
        try:
            context.load_verify_locations(settings.client_authority)
        except (ssl.SSLError, OSError) as error:
            said = f"service.client_authority {settings.client_authority}: is none ({_said(error)}); give a PEM file"
            raise SettingsError(said) from None
        options |= {"ssl_ca_certs": settings.client_authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options | ({"ssl_keyfile_password": password} if password else {})


def _said(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def _require_files(settings: ServiceSettings) -> None:
    for key in ("certificate", "private_key", "client_authority"):
        place = getattr(settings, key)
        try:
            if place:
                with Path(place).open("rb"):
                    pass
        except OSError as error:
            raise SettingsError(f"service.{key}: {place} cannot be read ({error.strerror}); give a PEM file") from None


def _require_valid(certificate: Path) -> None:
    """Whether today lies in the time of the first certificate; left to the clients where cryptography is missing."""
    try:
        from cryptography import x509
    except ImportError:
        return
    known = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    now = datetime.now(UTC)
    if not known.not_valid_before_utc <= now <= known.not_valid_after_utc:
        raise SettingsError(
            f"service.certificate: {certificate} is valid from {known.not_valid_before_utc:%Y-%m-%d} to "
            f"{known.not_valid_after_utc:%Y-%m-%d}, and today is {now:%Y-%m-%d}; have it renewed"
        )
