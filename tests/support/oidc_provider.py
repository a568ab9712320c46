"""A provider of OpenID Connect in a process of its own: the package `oidc-provider-mock`, with what tests ask beyond it.

The package signs people in who only give their name, and issues codes and tokens by Authlib. It does not check PKCE:
that is done here, as RFC 7636 says. `/test/rotate` gives it another signing key, `/test/sign` signs any claims with
the present one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

ROOT = Path(__file__).parents[2]
CLIENT_ID, CLIENT_SECRET = "trainkit", "a secret: with & and %"


@dataclass
class RunningProvider:
    """The process, and its address."""

    url: str
    process: subprocess.Popen[bytes]

    def set_user(self, subject: str, **claims: Any) -> None:
        """What its tokens say about a person from now on."""
        answer = httpx.put(f"{self.url}/users/{subject}", json=claims)
        assert answer.status_code < 300, answer.text

    def sign_in(self, authorization_url: str, subject: str, *, deny: bool = False) -> str:
        """Do what the person does in the browser; returns the address that the browser is sent to."""
        form = {"action": "deny"} if deny else {"sub": subject}
        answer = httpx.post(authorization_url, data=form, follow_redirects=False)
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])

    def rotate_key(self) -> None:
        """Sign with a new key; the old one is forgotten."""
        assert httpx.post(f"{self.url}/test/rotate").status_code == 204

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token with any claims, signed by its key."""
        return httpx.post(f"{self.url}/test/sign", json={"claims": claims, "header": header}).text

    def public_key(self) -> dict[str, Any]:
        """Its signing key."""
        (key,) = httpx.get(f"{self.url}/jwks").json()["keys"]
        return dict(key)


@contextlib.contextmanager
def running_provider() -> Iterator[RunningProvider]:
    """Start the process on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.support.oidc_provider", str(port)]
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/jwks").status_code == 200:
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield RunningProvider(url, process)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Serve until killed."""
    import flask
    import oidc_provider_mock
    from authlib.jose import JsonWebToken, RSAKey
    from oidc_provider_mock import _app

    all_claims = _app.OpenIDCode.generate_user_info

    def generate_user_info(self: Any, user: Any, scope: str) -> Any:
        """What ID tokens say: without the claims that are named in the person's claim `only_userinfo`."""
        hidden = {"only_userinfo", *user.claims.get("only_userinfo", ())}
        return {name: value for name, value in all_claims(self, user, scope).items() if name not in hidden}

    _app.OpenIDCode.generate_user_info = generate_user_info
    app = oidc_provider_mock.app(require_nonce=True)
    challenges: dict[str, str] = {}

    def storage() -> Any:
        return flask.g.oidc_provider_mock_storage

    @app.after_request
    def remember_challenge(response: flask.Response) -> flask.Response:
        if flask.request.path == "/oauth2/authorize" and response.status_code == 302:
            (code,) = parse_qs(urlsplit(response.headers["Location"]).query).get("code", [""])
            assert flask.request.args["code_challenge_method"] == "S256"
            challenges[code] = flask.request.args["code_challenge"]
        return response

    @app.before_request
    def check_client_and_verifier() -> Any:
        if flask.request.path != "/oauth2/token":
            return None
        expected = base64.b64encode(b"trainkit:a%20secret%3A%20with%20%26%20and%20%25").decode()
        if flask.request.headers.get("Authorization") != f"Basic {expected}":
            return flask.jsonify({"error": "invalid_client"}), 401
        digest = hashlib.sha256(flask.request.form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if challenges.get(flask.request.form.get("code", "")) != challenge:
            return flask.jsonify({"error": "invalid_grant"}), 400
        return None

    @app.post("/test/rotate")
    def rotate() -> Any:
        storage().jwk = RSAKey.generate_key(is_private=True)
        return "", 204

    @app.post("/test/sign")
    def sign() -> Any:
        body = flask.request.get_json()
        key = storage().jwk
        header = {"alg": "RS256", "kid": key.thumbprint(), **body["header"]}
        return JsonWebToken(["RS256"]).encode(header, body["claims"], key).decode()

    app.run("127.0.0.1", int(sys.argv[1]), debug=False, threaded=True)


if __name__ == "__main__":
    main()
