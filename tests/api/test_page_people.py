"""People on the page of a service on a person's own machine."""

from browser_visitor import ENTER, Visitor
from service_process import StartServer
from wheel_recordings import clip_wav


def test_voice_that_the_page_remembers_on_request_is_named_in_the_next_recording(
    start_own: StartServer, visitor: Visitor
) -> None:
    with start_own("page") as up:
        visitor.opens(up)
        visitor.sees(".status", "on this computer")  # the page knows that voices may be asked for
        visitor.drops("play.wav", clip_wav("endgame_nagg_nell"))
        visitor.sees("#main .title", "2 speakers")
        visitor.sees(".lane").click()
        visitor.sees("dialog[open] #called").send_keys("Nagg", ENTER)
        visitor.sees(".lane", "Nagg").click()
        visitor.sees("dialog[open] .quiet", "with a key in its keyring")
        visitor.sees("dialog[open] button", "Remember this voice").click()
        visitor.sees("#said", "Nagg is enrolled.")
        visitor.drops("again.wav", clip_wav("endgame_nagg_nell"))
        visitor.sees(".job[data-state=done] .name", "again.wav").click()
        visitor.sees("#main h1", "again.wav")
        visitor.sees(".lane", "Nagg").click()
        visitor.sees("dialog[open] .quiet", "Recognised by voice")
        assert visitor.findings() == []
