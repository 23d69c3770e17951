"""Who may see the page: the door, its token, and links that sign in."""

import datetime

import pytest
from browser_visitor import STRANGER, Visitor, script
from page_actions import FOCUS, LIVE, kept
from service_process import StartServer
from test_page import TOKEN, opened

from sidecar.auth.token_issuing import TokenIssuer


def test_link_signs_one_tab_in_once_and_leaves_no_token_in_the_address(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token=TOKEN, **kept(visitor.folder))
    visitor.opens(server)
    visitor.sees(".door", "vibevoice-asr open")
    assert visitor.findings() == []
    link = opened(server, TOKEN)
    visitor.driver.get("about:blank")
    visitor.driver.get(link)
    visitor.sees("h1", "Who said what")
    assert visitor.driver.current_url == f"http://127.0.0.1:{server.port}/"
    assert visitor.js("return document.cookie") == ""
    visitor.sends_tone("talk.wav", 3)
    visitor.sees("#main .title", "2 speakers")
    visitor.driver.refresh()
    visitor.sees(".job .name", "talk.wav").click()
    visitor.sees(".player button", "Listen to the recording").click()
    visitor.sees(".player .round[aria-label=Play]")
    visitor.until("document.querySelector('audio').duration === 3", "it is fetched with the token")
    assert TOKEN not in visitor.js("return performance.getEntries().map((one) => one.name).join()")
    visitor.driver.switch_to.new_window("tab")
    visitor.driver.get(link)
    visitor.sees(".trouble", "is not valid any more")
    field = visitor.sees("#token")
    field.send_keys(TOKEN)
    field.submit()
    visitor.sees(".job .name")
    visitor.js(script("know_sockets"))
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".title", "Listening")
    assert visitor.js("return sockets[0].url") == f"ws://127.0.0.1:{server.port}/v1/live"
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")


def test_sign_in_has_the_focus_which_is_then_where_it_was(
    visitor: Visitor, start_server: StartServer
) -> None:
    visitor.opens(start_server(token=TOKEN))
    is_at = f"{FOCUS} === document.querySelector"
    visitor.until(f"{is_at}('.door')", "it is announced")
    assert visitor.findings() == []
    visitor.signs_in(TOKEN)
    visitor.sees(".page[data-ready=yes]")
    visitor.until("document.querySelector('.door') === null", "it is open")
    visitor.js("document.querySelector('.intake .folder').focus()")
    visitor.js(f"sessionStorage.setItem('vibevoice-token', '{'x' * 40}')")
    visitor.comes_back_until(lambda: visitor.all(".door") != [], "the token is not valid")
    visitor.until(f"{is_at}('.door')", "it is announced again")
    visitor.signs_in(TOKEN)
    visitor.until(f"{is_at}('.intake .folder')", "the focus is where it was")


@pytest.mark.parametrize(
    ("host", "order"),
    [(STRANGER, ["H1", "FORM", "P", "P"]), ("localhost", ["H1", "P", "FORM", "P"])],
)
def test_sign_in_page_has_the_token_form_first_unless_opened_at_localhost(
    host: str, order: list[str], visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token="correct-horse-battery-staple", allowed_hosts=STRANGER)
    visitor.driver.get(f"http://{host}:{server.port}/")
    visitor.sees(".door", "vibevoice-asr open")
    tags = "return [...document.querySelector('.door').children].map((one) => one.tagName)"
    assert visitor.js(tags) == order


def test_sign_in_says_over_the_field_why_a_token_is_not_accepted(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    _, issue = issuer.create("anna")
    token = issuer.create("ben")[0]
    revoked, revoked_issue = issuer.create("clov")
    issuer.revoke(revoked_issue.token_id)
    past = TokenIssuer(issuer.folder, lambda: issue.issued - datetime.timedelta(days=9))
    expired, _ = past.create("anna", lasts_s=60)
    server = start_server(token_keys=issuer.keys.public)
    visitor.opens(server)
    for given, why in (
        (expired, "has expired"),
        (revoked, "was revoked"),
        (token[:-9], "mistyped"),
        ("naïve", "Copy it again"),
    ):
        field = visitor.sees(".door #token")
        field.clear()
        field.send_keys(given)
        field.submit()
        visitor.sees(".door form > :first-child .trouble", why)
        assert visitor.js("return sessionStorage.getItem('vibevoice-token')") is None
    assert visitor.findings() == []
    field = visitor.sees(".door #token")
    field.clear()
    field.send_keys(f"Bearer {token}")
    field.submit()
    visitor.sees("h1", "Who said what")


@pytest.mark.slow
def test_link_of_a_named_owner_signs_in_only_once_the_person_agrees(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    token, _ = issuer.create("mallory")
    server = start_server(token_keys=issuer.keys.public)
    links = [opened(server, token) for _ in range(2)]
    kept_token = "return sessionStorage.getItem('vibevoice-token')"
    visitor.driver.get(links[0])
    visitor.sees(".door", "signs you in as mallory")
    assert visitor.findings() == []
    assert visitor.js(kept_token) is None
    visitor.sees(".door button", "Do not sign in").click()
    visitor.sees(".door", "Sign in")
    assert visitor.js(kept_token) is None
    visitor.driver.get("about:blank")
    visitor.driver.get(links[1])
    visitor.sees(".door button", "Sign in as mallory").click()
    visitor.sees("h1", "Who said what")
    visitor.sees(".bar .status").click()
    visitor.sees("dialog .facts", "Signed in asmallory")
