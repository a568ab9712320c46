"""nginx and Caddy before API processes, with the configurations of the documentation as they stand there."""

from __future__ import annotations

import datetime
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.debian_package import find_program
from tests.support.markdown import ROOT, fences_of
from tests.support.stack import free_port, wait_for

PAGE = "docs/how-to/deploy.md"
ROOT_PATH = "/trainkit"
TITLES = {"nginx": "nginx.conf", "caddy": "Caddyfile"}
INSIDE = {"nginx": "usr/sbin/nginx", "caddy": "usr/bin/caddy"}
NGINX = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
{site}
}}
"""
CADDY = "{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {folder}/storage\n}}\n{site}"


@dataclass(frozen=True)
class ReverseProxy:
    """A running proxy. `url` is the host's; the API is below `ROOT_PATH`."""

    url: str
    certificate: Path
    access_log: Path

    def client(self, key: str, **headers: str) -> httpx.Client:
        """A client of the API; an absolute path that an answer names is asked for with `url` before it."""
        headers = {"Authorization": f"Bearer {key}", **headers} if key else headers
        trust = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=f"{self.url}{ROOT_PATH}", headers=headers, verify=trust, timeout=60)


def site_of(program: str, port: int, apis: Sequence[int], certificate: Path, log: Path) -> str:
    """The configuration of the page, with the ports and files of this machine."""
    fences = fences_of((ROOT / PAGE).read_text(encoding="utf-8"), PAGE)
    (site,) = [fence.text for fence in fences if fence.title == TITLES[program]]
    replacements = {
        "127.0.0.1:8321": f"127.0.0.1:{apis[0]}",
        "127.0.0.1:8322": f"127.0.0.1:{apis[1]}",
        "/etc/ssl/certs/trainkit.pem": str(certificate),
        "/etc/ssl/private/trainkit.key": str(certificate),
        f"/var/log/{program}/trainkit.log": str(log),
        **({"listen 443 ssl": f"listen 127.0.0.1:{port} ssl"} if program == "nginx" else {}),
        "trainkit.example.com": f"localhost:{port}" if program == "caddy" else "localhost",
    }
    for written, local in replacements.items():
        assert written in site, f"{TITLES[program]}: {written}"
        site = site.replace(written, local)
    return site


@contextmanager
def reverse_proxy(program: str, folder: Path, apis: Sequence[int]) -> Iterator[ReverseProxy]:
    """Run the proxy; skips the test where it is not installed."""
    path = find_program(program, program, INSIDE[program])
    if path is None:
        pytest.skip(f"{program} is not on PATH, and Debian's package of it cannot be had here")
    port, certificate, log = free_port(), folder / "localhost.pem", folder / "access.log"
    write_certificate(certificate)
    site = site_of(program, port, apis, certificate, log)
    if program == "nginx":
        (folder / "temp").mkdir()
        (folder / "nginx.conf").write_text(NGINX.format(site=site))
        command = [path, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    else:
        (folder / "Caddyfile").write_text(CADDY.format(folder=folder, site=site))
        command = [path, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    output = folder / "proxy.log"
    with output.open("wb") as written:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, cwd=folder)
    proxy = ReverseProxy(f"https://localhost:{port}", certificate, log)
    try:
        with proxy.client("") as client:
            wait_for(lambda: process.poll() is not None or _answers(client), seconds=60, what=program)
        assert process.poll() is None, output.read_text()
        yield proxy
    finally:
        process.kill()  # asked to end, it would wait for streams
        process.wait(timeout=30)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def write_certificate(path: Path) -> None:
    """A certificate of localhost that signs itself, and its key, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
