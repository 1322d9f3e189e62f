"""The browser of the tests: its network is closed, and a page that asks for what is not its own is at fault."""

import pytest
from browsing import closed_context, served

ASK = """addresses => Promise.allSettled(addresses.map(a => fetch(a, {mode: "no-cors"})))
    .then(all => all.map(answer => answer.status))"""


@pytest.mark.browser
def test_no_other_host_is_reached(browser, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><title>x</title><link rel=icon href=data:,>")
    with served(tmp_path) as own, served(tmp_path) as other:
        faults: list[str] = []
        page = closed_context(browser, (own,), faults).new_page()
        page.goto(f"{own}/index.html")
        assert not faults
        asked = [f"{own}/index.html", f"{other}/index.html", "http://192.0.2.1/", "https://example.org/"]
        assert page.evaluate(ASK, asked) == ["fulfilled", "fulfilled", "rejected", "rejected"]
        page.context.close()
    for address in asked[1:]:
        assert f"asked for {address}" in faults
    assert any("ERR_NAME_NOT_RESOLVED" in fault for fault in faults), "without a look at the network"
