"""The only copy of words that are missing from a transcript stays here, and that is said."""

import json
from pathlib import Path
from typing import Any

from browser_visitor import Visitor
from page_actions import worked_out
from service_process import Server, StartServer, new_file, wait_until
from test_page_recorder import comes_again, lines, pieces

from sidecar.transcripts import transcript
from sidecar.transcripts.transcript import Finished, Notice, Segment, Transcript, to_wire

TRUNCATED = Notice(transcript.TRUNCATED, "The output of the model ended early.")


def answers(path: Path, *notices: Notice) -> Path:
    """The file of what the scripted engine answers to every recording: one line, with these."""
    segments = (Segment(0.0, 1.0, "Not all of it.", 0),)
    found = Transcript(segments, "en", 2.0, "scripted", "fp32", diarized=True, notices=notices)
    return new_file(path, json.dumps([to_wire(Finished(found))]))


def test_audio_of_a_recording_whose_transcript_was_cut_short_stays_until_another_is_whole(
    visitor: Visitor, start_server: StartServer
) -> None:
    path = answers(visitor.folder / "events.json", TRUNCATED)
    server = start_server(scripted_events=path)
    visitor.opens(server)
    visitor.records(1)
    visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .notice", "ended early")
    visitor.sees(".job[data-state=kept] .how", "words are missing from its transcript")
    assert pieces(visitor) > 0
    comes_again(visitor, server)
    visitor.sees(".job[data-state=kept] .how", "words are missing from its transcript")
    visitor.sees(".job[data-state=kept] .pick").click()
    visitor.sees(".head button", "Show it heard again")
    assert visitor.findings() == []
    answers(path)
    visitor.sees(".head button", "Transcribe it").click()
    visitor.comes_back_until(lambda: pieces(visitor) == 0, "it is whole")
    wait_until(lambda: len(server.jobs()) == 1, "the one that lacks words is not beside it")
    assert server.transcript(server.jobs()[0]["id"])["metadata"]["warnings"] == []


def test_transcript_lacks_words_by_its_warnings_or_where_it_was_not_recognized_to_its_end(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)

    def lacks(*codes: str, **metadata: Any) -> bool:
        warnings = [{"code": code, "message": ""} for code in codes]
        given = {"metadata": {"duration": 10.0, "warnings": warnings, **metadata}}
        return bool(worked_out(visitor, "states.js", "the.lacksWords(given)", given))

    assert not lacks()
    assert not lacks("language_doubtful", "option_ignored", "speaker_count_differs")
    assert not lacks("audio_truncated"), "nor has its sound what is missing"
    for code in ("output_truncated", "recognition_failed", "speech_missed", "loop_skipped"):
        assert lacks("language_doubtful", code), code
    assert lacks(recognized_s=5.0)
    assert not lacks(recognized_s=10.0)


def test_kept_talk_whose_session_has_a_warning_of_missing_words_is_sent_as_a_recording(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    warnings = [{"code": "speech_missed", "message": ""}]
    summary = {"metadata": {"duration": 10.0, "warnings": warnings}}
    talk = {"keeps": True, "captions": {"job": "a job", "summary": summary}}
    assert worked_out(visitor, "states.js", "the.endOf(given, 10.0)", talk) == "ended"


LINE = {"text": "Yes.", "start_time": 1.0, "end_time": 2.5, "speaker": "Speaker_1"}
FINAL = {"type": "final", "piece": 0, "turn": 0, "segment": LINE}
UNHEARD = {**LINE, "text": "I would", "start_time": 3.0, "end_time": 4.0, "flags": ["unheard"]}
BROKEN = {
    "type": "summary",
    "transcript": {"segments": [LINE, UNHEARD], "metadata": {"duration": 12, "recognized_s": 2.5}},
}
"""The end of a session whose engine died: what was shown last was not recognized to its end."""


def told(visitor: Visitor, expression: str, *more: object) -> Any:
    """An expression of `captions.js` behind the events of a session whose engine died; ``more`` are
    events of the next."""
    before = [FINAL, BROKEN]
    expression = expression.replace("BEFORE", "given[0].reduce(the.after, the.NOTHING)")
    return worked_out(visitor, "captions.js", expression, [before, more])


NEXT = "given[1].reduce(the.after, the.continued(BEFORE, 2.5))"
"""The session that begins where the one before recognized nothing more."""


def texts(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(one["text"], one["start_time"]) for one in found]


def test_line_that_was_shown_stays_until_the_next_session_has_heard_it_again(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    shown = f"the.segmentsOf({NEXT})"
    assert texts(told(visitor, shown)) == [("Yes.", 1.0), ("I would", 3.0)]
    words = {"text": "I would like", "stable": "", "tail": ""}
    partial = {"type": "partial", "piece": 0, "turn": 0, "start": 0.4, "end": 2.0, **words}
    assert texts(told(visitor, shown, partial)) == [("Yes.", 1.0)], "it is in what is being said"
    dropped = {"type": "turn_dropped", "turn": 0}
    assert texts(told(visitor, shown, partial, dropped)) == [("Yes.", 1.0), ("I would", 3.0)]
    again = {**LINE, "text": "I would like.", "start_time": 0.4, "end_time": 2.0}
    final = {**FINAL, "segment": again}
    assert texts(told(visitor, shown, final)) == [("Yes.", 1.0), ("I would like.", 2.9)]
    assert told(visitor, f"({NEXT}).gaps") == []


def test_words_being_said_where_a_connection_breaks_stay_until_they_are_heard_again(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    words = {"text": "I would", "stable": "I", "tail": "like"}
    partial = {"type": "partial", "piece": 1, "turn": 1, "start": 3.0, "end": 4.0, **words}
    events = [FINAL, partial]
    expression = "the.segmentsOf(the.continued(given.reduce(the.after, the.NOTHING), 2.5))"
    found = worked_out(visitor, "captions.js", expression, events)
    assert texts(found) == [("Yes.", 1.0), ("I would like", 3.0)]
    assert found[1]["flags"] == ["unheard"]


def test_sound_that_no_session_is_asked_for_again_is_a_gap_and_its_lines_stay(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    skipped = f"the.continued({NEXT}, 13.5, 2.5)"
    assert texts(told(visitor, f"the.segmentsOf({skipped})")) == [("Yes.", 1.0), ("I would", 3.0)]
    assert told(visitor, f"({skipped}).gaps") == [[2.5, 13.5]]
    further = f"the.continued({skipped}, 20, 13.5)"
    assert told(visitor, f"({further}).gaps") == [[2.5, 13.5], [13.5, 20]]
    missed = "the.continued(BEFORE, 5)"  # a line behind was recognized: it is not asked for again
    assert told(visitor, f"({missed}).gaps") == [[2.5, 5]]


DIES = """window.dies = false;
window.died = 0;
window.WebSocket = class extends WebSocket {
  set onmessage(hear) {
    super.onmessage = (event) => {
      const body = JSON.parse(event.data);
      if (!window.dies || body.type === "began") return hear(event);
      if (body.type !== "received" || body.received_samples < 24000 * 0.5 || this.dead) return;
      this.dead = true;
      const segment = { text: "I would", start_time: 0.1, end_time: 0.4, flags: ["unheard"] };
      const say = (what) => hear({ data: JSON.stringify(what) });
      say({ ...body, recognized_s: 0 });
      say({ type: "final", number: 1e6, piece: 1e6, turn: 1e6, segment });
      window.died += 1;
      say({ type: "error", code: "engine_crashed", message: "The engine crashed.", hint: "" });
    };
  }
};"""
"""Sessions that begin while `dies` is true end as those of an engine that dies of what was said."""


def test_talk_says_what_is_not_captioned_and_keeps_its_lines_where_the_engine_dies_twice(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(DIES):
        visitor.opens(server)
    visitor.js("window.dies = true")
    visitor.sees(".intake button", "Live captions").click()
    visitor.until("window.died === 1", "the engine dies")
    visitor.sees("#main .notice", "Words may be missing from 0:00 to 0:0")
    assert "I would" in lines(visitor)
    visitor.sees(".trouble button", "Try again").click()
    visitor.until("window.died === 2", "and of what comes next")
    visitor.sees("#main .notice", ", 0:0")
    assert lines(visitor)[:2] == ["I would", "I would"], "no line that was shown goes away"
    assert visitor.findings() == []
    visitor.js("window.dies = false")
    visitor.sees(".trouble button", "Try again").click()
    visitor.sees(".title", "Listening")
    wait_until(lambda: len(lines(visitor)) > 2, "captions go on")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    assert lines(visitor)[:2] == ["I would", "I would"]
    visitor.sees("#main .notice", "Words may be missing")
    comes_again(visitor, server)
    visitor.sees(".job .pick", "Live 2").click()
    visitor.sees("#main .notice", "Words may be missing")


BREAKS = """const { send } = WebSocket.prototype;
WebSocket.prototype.send = function (data) {
  if (typeof data !== "string" || !data.includes('"finish"')) return send.call(this, data);
  const say = (what) => this.onmessage({ data: JSON.stringify({ number: 1e6, ...what }) });
  const words = { text: "and then I", stable: "", tail: "said" };
  say({ type: "partial", piece: 1e6, turn: 1e6, start: 0.5, end: 0.9, ...words });
  say({ type: "error", code: "engine_crashed", message: "The engine crashed.", hint: "" });
};"""
"""Sessions end, once there is no more audio, without what was being said."""


def test_words_shown_last_stay_with_their_audio_where_a_talk_breaks_off_after_stop(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(BREAKS):
        visitor.opens(server)
    visitor.sees(".intake button", "Live captions").click()
    visitor.until("document.querySelector('.talking .time')?.textContent >= '0:02'", "2 s")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    assert "and then I said" in lines(visitor)
    assert "Infinity" not in visitor.text()
    visitor.sees("#main .notice", "Words may be missing from")
    comes_again(visitor, server)
    visitor.sees(".job .pick", "Live 2").click()
    visitor.sees(".row .said", "and then I said")
    visitor.sees(".head button", "Transcribe it again in full").click()
    visitor.sees("#main .title", "scripted")
    assert server.jobs()[0]["duration"] > 1
