"""Copies of transcripts in the browser: of whom, how many, and once the service has none."""

import pytest
from browser_visitor import Visitor, script
from page_actions import LINES, said, stores_no_copies, writes
from service_clock import AHEAD_S, clocked_command, put_ahead
from service_process import Server, StartServer, wait_until
from test_page import TOKEN

from sidecar.auth.token_issuing import TokenIssuer

COPIES_AT_MOST = 200


@pytest.mark.slow
def test_browser_keeps_the_newest_200_transcript_copies_and_deletes_those_when_switched_off(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server()
    voice = visitor.tone("one.wav", 2).read_bytes()

    def copies(owner: str, count: int, at: int) -> list[list[str]]:
        made = visitor.driver.execute_async_script(script("copies"), owner, count, at)
        return list(made)

    with visitor.before(script("count_transcripts")):
        visitor.opens(server)
        owner = server.client.get("/v1/page/about").json()["owner"]
        old, late = 1_000_000, 9_000_000_000_000
        copies("somebody else", 3, old)
        copies(owner, COPIES_AT_MOST, old)
        visitor.opens(server)
        jobs = [server.submit(voice) for _ in range(3)]
        for job in jobs:
            server.wait_state(job, "done")

        def here() -> set[str]:
            return {name for whose, name in copies("", 0, 0) if whose == owner}

        wait_until(lambda: set(jobs) <= here(), "the newest are copied")
        assert len(here()) == COPIES_AT_MOST, "and as many of the oldest have gone"
        asked = visitor.js("return window.asked")
        assert len(asked) == len(jobs)
        assert all("renew=false" in address for address in asked)
        # there is room for none of those that are older than all that are here
        copies(owner, COPIES_AT_MOST, late)
        jobs = [server.submit(voice) for _ in range(2)]
        for job in jobs:
            server.wait_state(job, "done")
        visitor.opens(server)
        visitor.sees(".side h2", "Only in this browser")
        looks = "return window.looked"
        wait_until(lambda: visitor.js(looks) > 2, "it has looked again and again")
        assert visitor.js("return window.asked") == []
        visitor.sees(".storing input").click()
        visitor.sees("dialog[open] .danger").click()
        visitor.sees(".storing", "No copies are stored")
        wait_until(lambda: here() == set(), "all of them have gone")
        assert len(copies("", 0, 0)) == 3, "those of others stay"


def test_corrections_of_a_deleted_transcript_in_two_tabs_are_both_kept(
    visitor: Visitor, server: Server
) -> None:
    visitor.has_a_copy_alone(server)
    first = visitor.driver.current_window_handle

    def shows() -> None:
        visitor.sees(".job .pick", "two.wav").click()
        visitor.has_rows(4)

    def corrects(index: int, text: str) -> None:
        writes(visitor, index, text)
        visitor.sees("#said", "in this browser only")
        wait_until(lambda: said(visitor, index) == text, "it reads so")

    visitor.driver.switch_to.new_window("tab")
    visitor.opens(server)
    shows()
    corrects(1, "Second.")
    second = visitor.driver.current_window_handle
    visitor.driver.switch_to.window(first)
    corrects(2, "First.")
    assert said(visitor, 1) == "Second."
    visitor.driver.switch_to.window(second)
    writes(visitor, 2, "Not seen.")
    visitor.sees(".trouble", "changed meanwhile")
    assert said(visitor, 2) == "First."
    visitor.driver.close()
    visitor.driver.switch_to.window(first)
    visitor.opens(server)
    shows()
    assert visitor.js(LINES)[1:3] == ["Second.", "First."]


def test_expired_job_that_was_never_opened_is_shown_from_its_copy(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(command=clocked_command(visitor.folder), job_retention="1h")
    with visitor.before(script("passing_time")):
        visitor.reads(server, "first.wav", 5)
    visitor.sends_tone("second.wav", 7)
    visitor.comes_back_until(lambda: visitor.copies() == 2, "there are copies")
    assert {one["state"] for one in server.jobs()} == {"done"}, "the service has them, too"
    visitor.js("pass(arguments[0])", 1000 * AHEAD_S)
    put_ahead(server)
    headings = "return [...document.querySelectorAll('.side h2')].map((one) => one.textContent)"
    gone = ["Only in this browser"]
    visitor.comes_back_until(lambda: visitor.js(headings) == gone, "both gone")
    visitor.sees(".job .name", "second.wav").click()
    wait_until(lambda: visitor.rows() == 7, "it was never opened before")
    visitor.sees("#main .notice", "stored in this browser")
    visitor.sees("[aria-label='Delete second.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#said", "second.wav was deleted.")
    names = [one.text for one in visitor.all(".job .name")]
    assert names == ["first.wav"]


def test_transcript_copies_of_one_owner_in_the_browser_are_not_shown_to_another(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    tokens = {name: issuer.create(name)[0] for name in ("anna", "berta")}
    server = start_server(token_keys=issuer.keys.public)

    def signs_in(name: str) -> None:
        visitor.opens(server)
        visitor.js("sessionStorage.setItem('vibevoice-token', arguments[0])", tokens[name])
        visitor.driver.refresh()
        visitor.sees(".page[data-ready=yes]")

    signs_in("anna")
    visitor.sees(".intake")
    visitor.sends_tone("anna's own.wav", 3)
    visitor.sees("#main .title", "2 speakers")
    visitor.comes_back_until(lambda: visitor.copies() == 1, "there is a copy")
    signs_in("berta")
    visitor.sends_tone("berta's own.wav", 3)
    visitor.sees("#main .title", "2 speakers")
    visitor.comes_back_until(lambda: visitor.copies() == 2, "and another's")
    found = [one.text for one in visitor.all(".side h2")]
    assert found == ["Done"], "none is only in this browser"
    assert "anna" not in visitor.text()
    # who switches them off is asked, and deletes none of another's
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open] [type=submit]", "Keep it").click()
    assert visitor.one(".storing input").is_selected()
    assert visitor.copies() == 2
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees(".storing", "No copies are stored")
    wait_until(lambda: visitor.copies() == 1, "only hers is gone")
    signs_in("anna")
    visitor.sees(".storing", "Copies stay in this browser")
    assert visitor.copies() == 1


def test_first_token_of_a_service_stores_no_copies_where_none_were_wanted_without_one(
    visitor: Visitor,
) -> None:
    with Server(visitor.folder / "before") as server:
        port = server.port
        visitor.reads(server, "two.wav", 2)
        stores_no_copies(visitor)
    with Server(visitor.folder / "after", port=port, token=TOKEN) as server:
        visitor.opens(server)
        visitor.signs_in(TOKEN)
        visitor.sends_tone("own.wav", 2)
        visitor.sees(".storing", "No copies are stored")
        visitor.sees(".storing input").click()
        visitor.sees(".storing", "Copies stay in this browser")
