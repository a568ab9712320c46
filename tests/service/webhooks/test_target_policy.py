"""Where webhooks may point to: every class of address that is not the public internet is refused, however it is written."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.leases import Claim
from service.secret_box import SecretBox
from service.webhooks import target_policy, transport
from service.webhooks.delivery_queue import ClaimedDelivery
from service.webhooks.sender import Sender
from service.webhooks.signing import new_secret
from service.webhooks.target_policy import TargetPolicy, TargetRefused, is_public
from tests.support.api import Served, assert_problem
from tests.support.webhook_receiver import Receiver, deliveries, hook, receiving

NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "unspecified, this network": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254"],
    "link-local, metadata": ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0"],
    "shared (CGNAT)": ["100.64.0.1", "100.127.255.255", "100.100.100.200"],
    "multicast, broadcast": ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff0e::1"],
    "reserved, benchmarks, documentation": ["240.0.0.1", "198.18.0.1", "198.19.255.255", "192.0.2.1", "198.51.100.1"],
    "more of it": [
        "203.0.113.1",
        "192.0.0.192",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "fec0::1",
        "192.88.99.1",
    ],
    "a cloud's own inside": ["168.63.129.16"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"],
    "IPv4-compatible and translated": ["::7f00:1", "::ffff:0:127.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::"],
    "Teredo, ORCHID": ["2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::1", "2001:20::1"],
}
PUBLIC = [
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize("kind", NOT_PUBLIC)
def test_addresses_that_are_not_public(kind: str) -> None:
    for address in NOT_PUBLIC[kind]:
        assert not is_public(ip_address(address)), address
        with pytest.raises(TargetRefused, match="not on the public internet"):
            TargetPolicy(resolve=answers([address])).check("https://hooks.example/")


def test_addresses_that_are() -> None:
    for address in PUBLIC:
        assert is_public(ip_address(address)), address
        assert TargetPolicy(resolve=answers([address])).check("https://hooks.example/").addresses == (
            str(ip_address(address)),
        )


def answers(addresses: Sequence[str]) -> Any:
    return lambda host, port: list(addresses)


def test_one_bad_address_among_good_ones_is_enough() -> None:
    with pytest.raises(TargetRefused, match="not on the public"):
        TargetPolicy(resolve=answers(["8.8.8.8", "10.0.0.1"])).check("https://hooks.example/")


@pytest.mark.parametrize(
    "url",
    [
        *("https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://localhost/"),
        *(
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://127.0.0.1./",
            "https://0/",
            "https://[fe80::1%25lo]/",
        ),
    ],
)
def test_loopback_by_any_other_name(url: str) -> None:
    """As the machine's own resolver reads it."""
    with pytest.raises(TargetRefused) as refused:
        TargetPolicy().check(url)
    assert refused.value.code in ("not_public", "unknown_host", "bad_url")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://hooks.example/", "not_https"),
        ("ftp://hooks.example/", "bad_url"),
        ("file:///etc/passwd", "bad_url"),
        ("//hooks.example/", "bad_url"),
        ("hooks.example", "bad_url"),
        ("https://", "bad_url"),
        ("https:///path", "bad_url"),
        ("https://me:word@hooks.example/", "credentials_in_url"),
        ("https://8.8.8.8@hooks.example/", "credentials_in_url"),
        ("https://hooks.example/#part", "bad_url"),
        ("https://hooks.example\\@evil.example/", "bad_url"),
        ("https://hooks.example/a b", "bad_url"),
        ("https://hooks.example/\r\nHost:x", "bad_url"),
        ("https://hooks.example:99999/", "bad_url"),
        ("https://hooks.example:x/", "bad_url"),
        ("https://hooks.example:25/", "bad_port"),
        ("https://hooks.example:0/", "bad_port"),
        ("https://hooks.example:22/", "bad_port"),
        ("https://bücher.example/", "bad_url"),
        ("https://[::1/", "bad_url"),
        ("https://[hooks]/", "bad_url"),
        ("https://" + "a" * 2000 + "/", "bad_url"),
    ],
)
def test_urls_that_are_refused(url: str, code: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        TargetPolicy(resolve=answers(["8.8.8.8"])).check(url)
    assert refused.value.code == code


def test_a_url_is_taken_apart() -> None:
    public = TargetPolicy(resolve=answers(["8.8.8.8"]))
    target = public.check("HTTPS://Hooks.Example:8443/a?b=c")
    assert (target.scheme, target.host, target.port, target.path) == ("https", "hooks.example", 8443, "/a?b=c")
    assert target.authority == "hooks.example:8443"
    assert public.check("https://hooks.example?x").path == "/?x"
    literal = TargetPolicy(resolve=answers(["2606:4700::1111"])).check("https://[2606:4700::1111]/")
    assert (literal.host, literal.authority) == ("2606:4700::1111", "[2606:4700::1111]")


@pytest.mark.parametrize("failure", [OSError("gone"), UnicodeError("label too long"), socket.gaierror(-2, "unknown")])
def test_a_name_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    monkeypatch.setattr(target_policy.socket, "getaddrinfo", fail)
    with pytest.raises(TargetRefused) as refused:
        TargetPolicy().check("https://hooks.example/")
    assert refused.value.code == "unknown_host"


def test_a_resolver_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(target_policy, "RESOLVE_SECONDS", 0.05)
    monkeypatch.setattr(target_policy.socket, "getaddrinfo", lambda *_, **__: release.wait(60) and [])
    with pytest.raises(TargetRefused, match="no answer"):
        TargetPolicy().check("https://hooks.example/")
    release.set()


def test_what_the_platform_allows() -> None:
    inside = answers(["10.1.2.3"])
    for allow in ("hooks.internal", "Hooks.Internal", "10.1.0.0/16", "10.1.2.3"):
        target = TargetPolicy((allow,), inside).check("http://hooks.internal:80/x")
        assert (target.scheme, target.addresses) == ("http", ("10.1.2.3",)), "also without TLS"
    for allow in ("internal", "10.2.0.0/16", "8.8.8.8", "x.hooks.internal"):
        with pytest.raises(TargetRefused):
            TargetPolicy((allow,), inside).check("https://hooks.internal/")
    assert TargetPolicy(("10.0.0.0/8",), answers(["::ffff:10.1.2.3"])).check("https://a.b/").host == "a.b"
    with pytest.raises(TargetRefused, match="not on the public"):
        TargetPolicy(("10.0.0.0/8",), answers(["10.1.2.3", "192.168.0.1"])).check("https://hooks.internal/")
    mixed = TargetPolicy(("10.0.0.0/8",), answers(["10.1.2.3", "8.8.8.8"]))
    assert mixed.check("https://both.example/").addresses == ("10.1.2.3", "8.8.8.8")
    with pytest.raises(TargetRefused, match="https"):
        mixed.check("http://both.example/")
    for wrong in ("10.0.0.1/8", "a b", "http://x/"):
        with pytest.raises(ValueError, match="TRAINKIT_WEBHOOK_ALLOW"):
            TargetPolicy((wrong,))


SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@SQLITE
def test_a_name_that_turns_private_after_it_was_accepted_is_not_sent_to(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[str] = []
    with receiving() as receiver:
        port = int(receiver.url.split(":")[2].split("/")[0])

        def rebinding(host: str, _port: int) -> list[str]:
            lookups.append(host)
            return ["8.8.8.8"] if len(lookups) == 1 else ["127.0.0.1"]

        monkeypatch.setattr(target_policy, "resolve_host", rebinding)
        webhook = hook(service, f"https://rebind.example:{port}/")
        assert service.client.post(f"/v1/webhooks/{webhook['id']}/test").status_code == 202
        one = Sender(service.sessions, TargetPolicy(), SecretBox(service.context.settings), transport.Channels())
        assert one.start_due() == 1
        assert one.drain(60)
        assert receiver.got == []
    (shown,) = deliveries(service, webhook["id"])
    assert (shown["state"], shown["attempts"], shown["status_code"]) == ("pending", 1, None)
    assert shown["error"].startswith("not sent: the host 'rebind.example' has an address that is not on the public")
    assert "127.0.0.1" not in shown["error"], "what the inside looks like is nobody's business"
    assert lookups == ["rebind.example"] * 2, "one look-up for each check, and none by the connection"
    with monkeypatch.context() as outside:
        outside.setattr(target_policy, "resolve_host", answers(["10.0.0.1"]))
        assert_problem(
            service.client.patch(f"/v1/webhooks/{webhook['id']}", json={"url": "https://a.b/"}), 422, "invalid_request"
        )


def claimed(url: str) -> ClaimedDelivery:
    now = datetime.datetime.now(datetime.UTC)
    return ClaimedDelivery(Claim("msg_1", 1), "wh_1", url, "standard", (new_secret(),), "{}", now)


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """Whatever the name means by then; the receiver still sees the name."""
    with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        pinned = TargetPolicy(("hooks.invalid",), answers(["127.0.0.1"]))
        outcome = transport.send(pinned, claimed(f"http://hooks.invalid:{port}/a?b=c"), transport.Channels())
        assert (outcome.status_code, outcome.error) == (204, None)
        assert receiver.got[0].headers["Host"] == f"hooks.invalid:{port}"
        assert receiver.got[0].path == "/a?b=c"


def test_an_address_that_is_silent_leaves_time_for_the_next() -> None:
    with receiving() as receiver, socket.socket() as nobody:
        nobody.bind(("127.0.0.2", 0))  # bound and not listening: refuses
        port = receiver.url.split(":")[2].split("/")[0]
        both = TargetPolicy(("hooks.invalid",), answers(["127.0.0.2", "127.0.0.1"]))
        assert transport.send(both, claimed(f"http://hooks.invalid:{port}/"), transport.Channels()).status_code == 204


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver, receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (
            transport.send(TargetPolicy(("127.0.0.1",)), claimed(receiver.url), transport.Channels()).status_code == 204
        )
        assert (len(receiver.got), proxy.got) == (1, [])


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for the name, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    file = folder / f"{name}.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, form, plain))
    return file


@contextmanager
def over_tls(receiver: Receiver, folder: Path, names: list[str | None]) -> Iterator[None]:
    """The receiver behind TLS, with a certificate for hooks.example; `names` gets what each client asks for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder, "hooks.example"))
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    receiver.wrap(context)
    yield


def test_tls_goes_by_the_name_though_the_connection_goes_to_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str | None] = []
    with receiving() as receiver, over_tls(receiver, tmp_path, names):
        port = receiver.url.split(":")[2].split("/")[0]
        policy = TargetPolicy(("hooks.example", "other.example"), answers(["127.0.0.1"]))
        unknown = transport.send(policy, claimed(f"https://hooks.example:{port}/"), transport.Channels())
        assert unknown.error is not None
        assert "certificate verify failed" in unknown.error, "an authority that nobody knows"
        trusting = ssl.create_default_context(cafile=str(tmp_path / "hooks.example.pem"))
        monkeypatch.setattr(transport, "tls_context", lambda: trusting)
        assert (
            transport.send(policy, claimed(f"https://hooks.example:{port}/"), transport.Channels()).status_code == 204
        )
        other = transport.send(policy, claimed(f"https://other.example:{port}/"), transport.Channels())
        assert other.error is not None
        assert "certificate is not valid for 'other.example'" in other.error
        assert names == ["hooks.example", "hooks.example", "other.example"]
        assert len(receiver.got) == 1
