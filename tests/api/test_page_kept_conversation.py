"""What was said in a conversation is in the browser until it is a job, or deleted."""

from browser_visitor import Visitor
from page_actions import LEAVES
from service_process import Server, StartServer, wait_until
from test_page_conversation import stops
from test_page_recorder import HOLDS_ABOUT, comes_again

from sidecar.auth.token_issuing import TokenIssuer


def test_conversation_of_a_closed_tab_is_offered_with_all_its_lines_until_it_is_deleted(
    visitor: Visitor, talks: Server
) -> None:
    visitor.has_typed(talks)
    visitor.types("Then.")
    comes_again(visitor, talks)
    visitor.sees(".side h2", "Only in this browser")
    visitor.sees(".job .pick", "Conversation 2").click()
    said = "return [...document.querySelectorAll('.row .said')].map((one) => one.textContent)"
    spoken = ["Before.", "You said: Before.", "Then.", "You said: Then."]
    wait_until(lambda: [one.strip() for one in visitor.js(said)] == spoken, "all of it")
    assert visitor.js("return document.querySelector('.row .name').textContent") == "You"
    assert visitor.findings() == []
    visitor.sees("[aria-label^='Delete Conversation']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("h1", "Who said what")
    visitor.opens(talks)
    visitor.sees("h1", "Who said what")


def test_conversation_whose_download_failed_is_offered_again(
    visitor: Visitor, talks: Server
) -> None:
    visitor.has_typed(talks)
    stops(visitor)
    visitor.sees(".head button", "Download").click()
    visitor.js("URL.createObjectURL = () => '#';")
    visitor.sees("#formats button", ".txt").click()
    assert not visitor.js(f"{LEAVES} return !leaves()"), "it is left without a question"
    comes_again(visitor, talks)
    visitor.sees(".job .pick", "Conversation 2").click()
    visitor.sees(".row .said", "Before.")
    visitor.sees("[aria-label^='Delete Conversation']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("h1", "Who said what")


def test_conversation_that_became_a_job_is_not_stored_by_the_browser(
    visitor: Visitor, talks: Server
) -> None:
    visitor.has_typed(talks)
    visitor.sees(".talking label", "Keep as a transcript").click()
    stops(visitor)
    visitor.sees(".job[data-state=done] .name", "Conversation 2")
    comes_again(visitor, talks)
    visitor.sees(".job[data-state=done] .name", "Conversation 2")
    assert len(visitor.all(".job")) == 1
    talks.client.delete("/v1/data").raise_for_status()


def test_conversation_of_one_person_is_not_offered_to_another(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    tokens = {name: issuer.create(name)[0] for name in ("anna", "berta")}
    server = start_server(token_keys=issuer.keys.public, voice_engine="scripted")
    visitor.opens(server)
    visitor.is_in(tokens["anna"])
    visitor.sees(".intake button", "Conversation").click()
    visitor.only_types()
    visitor.types("A secret.")
    comes_again(visitor, server)
    visitor.is_in(tokens["berta"])
    visitor.drops("other.wav", visitor.tone("other.wav", 1).read_bytes())
    visitor.sees(".job[data-state=done] .name", "other.wav")
    assert "Conversation 2" not in visitor.text()
    visitor.is_in(tokens["anna"])
    visitor.sees(".job .pick", "Conversation 2")


def test_conversation_that_began_before_its_owner_was_known_is_offered_at_the_next_visit(
    visitor: Visitor, talks: Server
) -> None:
    with visitor.before(HOLDS_ABOUT):
        visitor.has_typed(talks)
    visitor.js("window.holds = false")
    visitor.sees(".status .quiet", "On this computer")
    visitor.types("Then.")
    comes_again(visitor, talks)
    visitor.sees(".job .pick", "Conversation 2").click()
    visitor.sees(".row .said", "Before.")
    visitor.sees(".row .said", "Then.")
    visitor.sees("[aria-label^='Delete Conversation']").click()
    visitor.sees("dialog[open] .danger").click()
