"""The interactive documentation in a real browser, below a path of a proxy, with no other host to reach."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page

from tests.support.chromium import chromium
from tests.support.stack import Stack

PREFIX = "/tools/trainkit"
NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


def sign_in(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_sign_in_and_try_an_operation(stack: Stack) -> None:
    with chromium() as browser:
        page = browser.new_context(extra_http_headers={"X-Forwarded-Prefix": PREFIX}).new_page()
        page.set_default_timeout(120_000)
        page.add_init_script(NOTE_VIOLATIONS)
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(f"{stack.url}{PREFIX}/docs")
        message = page.locator("#message")
        message.filter(has_text="Enter an API key").wait_for()
        sign_in(page, f"tk_{'0' * 8}_{'0' * 40}")
        message.filter(has_text="unknown or was revoked").wait_for()
        assert page.locator("#operations .opblock-tag").count() == 0
        sign_in(page, stack.key)
        page.locator("#operations-tag-catalog").click()
        operation = page.locator("#operations-catalog-getCatalog")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Execute").click()
        status = operation.locator(".live-responses-table td.response-col_status")
        status.filter(has_text="200").wait_for()
        # the key is in the page's memory and nowhere else
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert page.evaluate("violations") == []
        assert f"{stack.url}{PREFIX}/v1/catalog" in addresses
        page.get_by_role("link", name="Errors").click()
        page.locator("section#key_invalid").wait_for()
        page.get_by_role("link", name="key_invalid", exact=True).first.click()
        assert page.url == f"{stack.url}{PREFIX}/docs/errors#key_invalid"
        assert page.evaluate("violations") == []
        page.go_back()
        page.go_back()
        message.filter(has_text="Enter an API key").wait_for()
    hosts = {f"{urlsplit(address).scheme}://{urlsplit(address).netloc}" for address in addresses}
    assert hosts == {stack.url}
    assert not [address for address in addresses if stack.key in address]
