"""Certificates for tests of TLS, made by the program openssl."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

with_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


async def make_certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Return a certificate that signs itself, for a name and this machine, and what a server with it needs."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    asked = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {certificate} -subj /CN={name}"
    command = [*asked.split(), "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{name}"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=20)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return certificate, tls
