"""TLS for the brokers of a test: a certificate, and the lines that have a broker use it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key.

    Attributes:
        file: The certificate, which is its own authority.
        key: Its key.
    """

    file: Path
    key: Path


def make_certificate(folder: Path, host: str) -> Certificate:
    """Make a certificate for one host name."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"),
            *("-keyout", str(made.key), "-out", str(made.file)),
        ],
        check=True,
        capture_output=True,
    )
    return made


def redis_lines(certificate: Certificate, port: int) -> list[str]:
    """Return the configuration with which a Redis speaks TLS on one more port."""
    return [
        f"tls-port {port}",
        f"tls-cert-file {certificate.file}",
        f"tls-key-file {certificate.key}",
        "tls-auth-clients no",
    ]


def rabbitmq_lines(certificate: Certificate, port: int) -> list[str]:
    """Return the configuration with which a RabbitMQ speaks TLS on one more port."""
    return [
        f"listeners.ssl.local = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {certificate.file}",
        f"ssl_options.certfile = {certificate.file}",
        f"ssl_options.keyfile = {certificate.key}",
        "ssl_options.verify = verify_none",
    ]
