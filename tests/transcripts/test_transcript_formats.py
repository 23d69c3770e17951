import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from vibevoice_asr_client import calls, models

from sidecar import errors
from sidecar.api.transcribe_routes import TranscribeSegment
from sidecar.cli.remote_service import convert_transcript
from sidecar.plugins.upstream.sidecar_dialect import parse_sidecar_answer
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    SEGMENT_FLAGS,
    Notice,
    Segment,
    SpeakerProfile,
    Transcript,
    Word,
    collapse_commas,
    join_texts,
)
from sidecar.transcripts.transcript_formats import (
    FORMATS,
    SHORT_RESULT,
    file_extension,
    render_result,
    render_transcript,
)


def transcript(*segments: Segment) -> Transcript:
    duration = max((segment.end for segment in segments), default=0.0)
    diarized = any(segment.speaker is not None for segment in segments)
    return Transcript(segments, "en", duration, "scripted", "fp32", diarized)


TALK = transcript(
    Segment(1.2, 2.9996, "Do you hear me?", 0),
    Segment(3.0, 4.25, "Tom & Jerry <i>say</i> --> this", 1),
)
UNDIARIZED = transcript(Segment(0.0, 1.0, "One."), Segment(1.0, 2.0, "Two."))


def test_text_has_time_and_speaker_of_every_segment():
    assert render_transcript(TALK, "text") == (
        "[00:00:01.2] Speaker_0: Do you hear me?\n"
        "[00:00:03.0] Speaker_1: Tom & Jerry <i>say</i> --> this\n"
    )


def test_text_format_without_diarization_has_neither_times_nor_speakers():
    assert render_transcript(UNDIARIZED, "text") == "One.\nTwo.\n"


def test_json_has_the_documented_fields():
    body = json.loads(render_transcript(TALK, "json"))
    assert body["segments"][0] == {
        "speaker": "Speaker_0",
        "start_time": 1.2,
        "end_time": 3.0,
        "text": "Do you hear me?",
    }
    assert body["metadata"]["num_speakers"] == 2
    assert body["metadata"]["model_precision"] == "fp32"
    assert body["metadata"]["diarized"] is True


def test_json_parses_to_the_same_transcript():
    full = Transcript(
        segments=(
            Segment(0.5, 1.5, "Grüße – 你好", 0, (Word(0.5, 1.0, "Grüße"),), ("loop",)),
            Segment(2.0, 3.0, "Again.", 1),
        ),
        language="de",
        duration=4.0,
        engine="moonshine",
        precision="int8",
        diarized=True,
        notices=(Notice("audio_truncated", "It was cut off."),),
    )
    text = render_transcript(full, "json")
    assert "你好" in text
    assert convert_transcript(models.transcript_of(json.loads(text))) == full
    assert (
        convert_transcript(models.transcript_of(json.loads(render_transcript(UNDIARIZED, "json"))))
        == UNDIARIZED
    )


IDENTIFIED = Transcript(
    (
        Segment(0.0, 3.0, "[Music]", None, flags=(NON_SPEECH_FLAG,)),
        Segment(3.0, 6.0, "Hi.", 1),
        Segment(6.0, 9.0, "Yes.", 0),
    ),
    "en", 9.0, "vibevoice", "int8", True, device="cuda",
    voices=(SpeakerProfile(0, 5.0, "p1", "Nell", 0.8), SpeakerProfile(1, 4.0, likeness=0.2)),
)  # fmt: skip


def test_json_of_identified_speakers_and_music_is_read_back_and_renders_the_same():
    body = json.loads(render_transcript(IDENTIFIED, "json"))
    again = convert_transcript(models.transcript_of(body))
    assert again == IDENTIFIED
    assert {fmt: render_transcript(again, fmt) for fmt in FORMATS} == {
        fmt: render_transcript(IDENTIFIED, fmt) for fmt in FORMATS
    }


@pytest.mark.parametrize("speakers", [None, "x", [1], [{"speaker": "?"}], [{"speaker": None}]])
def test_names_of_another_service_are_read_from_segments_if_it_describes_no_speakers(speakers):
    body = json.loads(render_transcript(IDENTIFIED, "json"))
    body["metadata"]["speakers"] = speakers
    assert convert_transcript(models.transcript_of(body)).name_of(0) == "Nell"


def test_srt_has_numbered_cues_that_end_with_the_recording():
    assert render_transcript(TALK, "srt") == (
        "1\n00:00:01,200 --> 00:00:03,000\nSpeaker_0: Do you hear me?\n\n"
        "2\n00:00:03,000 --> 00:00:04,250\nSpeaker_1: Tom & Jerry <i>say</i> -> this\n"
    )


def test_srt_has_no_arrow_within_text_however_long_it_is_there():
    odd = transcript(
        Segment(0.0, 3.0, "see ---> there ----->> and -> -- >"),
        Segment(3.0, 6.0, "00:00:01,000 ---> 00:00:02,000"),
    )
    assert render_transcript(odd, "srt") == (
        "1\n00:00:00,000 --> 00:00:03,000\nsee -> there ->> and -> -- >\n\n"
        "2\n00:00:03,000 --> 00:00:06,000\n00:00:01,000 -> 00:00:02,000\n"
    )
    assert render_transcript(odd, "vtt").count("-->") == 2


def test_vtt_has_voices_and_escapes_markup():
    assert render_transcript(TALK, "vtt") == (
        "WEBVTT\n\n"
        "00:00:01.200 --> 00:00:03.000\n<v Speaker_0>Do you hear me?\n\n"
        "00:00:03.000 --> 00:00:04.250\n"
        "<v Speaker_1>Tom &amp; Jerry &lt;i&gt;say&lt;/i&gt; --&gt; this\n"
    )


def test_vtt_word_of_low_confidence_has_the_class_doubtful():
    words = (Word(0.0, 0.4, "Tom", 0.9), Word(0.5, 0.8, "&Co", 0.69), Word(0.8, 1.0, "left.", 0.7))
    talk = transcript(Segment(0.0, 1.0, "Tom &Co left.", 0, words))
    assert "\n<v Speaker_0>Tom <c.doubtful>&amp;Co</c> left.\n" in render_transcript(talk, "vtt")
    assert "\nSpeaker_0: Tom &Co left.\n" in render_transcript(talk, "srt")


def test_subtitle_times_go_beyond_99_hours():
    late = transcript(Segment(360_000.0, 360_001.9999, "Late."))
    assert "100:00:00,000 --> 100:00:02,000" in render_transcript(late, "srt")
    assert "100:00:00.000 --> 100:00:02.000" in render_transcript(late, "vtt")


def test_vtt_cue_of_a_segment_without_duration_lasts_a_second():
    assert "00:00:01.000 --> 00:00:02.000" in render_transcript(
        transcript(Segment(1.0, 1.0, "Hm.")), "vtt"
    )


def test_line_breaks_and_tabs_in_a_text_add_no_lines_to_tsv_subtitles_and_text():
    odd = transcript(Segment(0.0, 1.0, "one\n\ntwo\tthree\r\n", 0))
    assert render_transcript(odd, "tsv").splitlines()[1] == "0\t1000\tSpeaker_0\tone two three"
    assert render_transcript(odd, "srt").count("\n\n") == 0
    assert render_transcript(odd, "vtt").count("\n\n") == 1
    assert render_transcript(odd, "text").count("\n") == 1


def test_tsv_without_diarization_has_empty_speakers():
    assert render_transcript(UNDIARIZED, "tsv") == (
        "start\tend\tspeaker\ttext\n0\t1000\t\tOne.\n1000\t2000\t\tTwo.\n"
    )


def test_rttm_has_ten_fields_and_no_empty_turns():
    turns = transcript(
        Segment(1.2, 2.9996, "a", 0), Segment(3.0, 3.0, "b", 1), Segment(3.5, 4.0, "c", 1)
    )
    assert render_transcript(turns, "rttm", "my talk") == (
        "SPEAKER my_talk 1 1.200 1.800 <NA> <NA> Speaker_0 <NA> <NA>\n"
        "SPEAKER my_talk 1 3.500 0.500 <NA> <NA> Speaker_1 <NA> <NA>\n"
    )


def test_transcript_without_segments_renders_in_every_format():
    silence = transcript()
    assert {fmt: render_transcript(silence, fmt) for fmt in FORMATS if fmt != "json"} == {
        "text": "",
        "srt": "",
        "vtt": "WEBVTT\n",
        "tsv": "start\tend\tspeaker\ttext\n",
        "rttm": "",
    }
    assert json.loads(render_transcript(silence, "json"))["metadata"]["no_speech"] is True


def test_truncated_output_without_segments_is_not_called_silence():
    cut = transcript().with_notice(Notice("output_truncated", "Cut."))
    assert json.loads(render_transcript(cut, "json"))["metadata"]["no_speech"] is False


def test_music_segment_has_no_speaker_in_any_format_and_no_rttm_line():
    music = Segment(0.0, 4.0, "[Music]", flags=(NON_SPEECH_FLAG,))
    played = transcript(music, Segment(4.0, 5.0, "Welcome.", 0))
    assert (
        render_transcript(played, "text")
        == "[00:00:00.0] [Music]\n[00:00:04.0] Speaker_0: Welcome.\n"
    )
    assert "\n[Music]\n" in render_transcript(played, "srt")
    assert "\n[Music]\n" in render_transcript(played, "vtt")
    assert render_transcript(played, "rttm", "a").count("SPEAKER") == 1
    assert (played.text, played.num_speakers) == ("Welcome.", 1)
    only = json.loads(render_transcript(transcript(music), "json"))["metadata"]
    assert (only["no_speech"], only["num_speakers"]) == (True, 0)


def test_speech_that_was_not_told_apart_says_so_and_is_read_back_as_nobodys():
    mixed = transcript(Segment(0.0, 1.0, "Who?"), Segment(1.0, 2.0, "Me.", 0))
    body = json.loads(render_transcript(mixed, "json"))
    assert [(one["speaker"], one.get("flags")) for one in body["segments"]] == [
        ("Speaker_0", ["speaker_unknown"]),
        ("Speaker_0", None),
    ]
    assert convert_transcript(models.transcript_of(body)) == mixed
    assert parse_sidecar_answer(body, 2.0).segments == mixed.segments
    said = TranscribeSegment.model_json_schema()["properties"]["flags"]
    assert said["items"]["enum"] == list(SEGMENT_FLAGS)
    assert all(f"'{flag}'" in said["description"] for flag in SEGMENT_FLAGS)


def test_unknown_format_is_refused_with_the_known_ones_in_the_hint():
    with pytest.raises(errors.FieldInvalid) as caught:
        render_transcript(TALK, "docx")
    assert "srt" in caught.value.hint


def test_clients_and_page_offer_every_format_and_the_docs_name_it():
    root = Path(__file__).parents[2]
    assert set(calls.FORMATS) == set(FORMATS)
    for source in ("clients/js/src/calls.js", "clients/js/types/calls.d.ts"):
        found = re.search(r"const FORMATS\b[^;]*?\[([^\]]*)\]", (root / source).read_text("utf-8"))
        assert found is not None, source
        assert set(json.loads(f"[{found[1]}]")) == set(FORMATS), source
    for source in ("clients/js/src/calls.js", "clients/js/types/calls.d.ts"):
        text = (root / source).read_text("utf-8")
        (kinds,) = set(re.findall(r"(?:type Format = |typedef {)(\"json[^;}]+)", text))
        assert {json.loads(one) for one in kinds.split(" | ")} == set(FORMATS), source
    page = (root / "sidecar/api/static/pane.js").read_text("utf-8")
    for fmt, known in FORMATS.items():
        assert f'["{fmt}", "{known.label}", "{file_extension(fmt)}"]' in page
    lines = (root / "docs/queue.md").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("- **The transcript**")]
    assert set(FORMATS) <= set(re.findall(r"[a-z]+", line))


def test_file_extension_is_txt_for_text_and_the_name_of_any_other_format():
    assert [file_extension(fmt) for fmt in FORMATS] == ["txt", "json", "srt", "vtt", "tsv", "rttm"]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([], ""),
        (["One."], "One."),
        (["One.", "Two."], "One. Two."),
        (["In short,", ", the period"], "In short, the period"),
        (["In short", ", the period"], "In short, the period"),
        (["In short.", ", The period"], "In short. The period"),
        (["One;", "; two"], "One; two"),
        (["One,", ",", "two"], "One, two"),
        (["One,", "", "  two "], "One, two"),
        (["Well,", "... so"], "Well, ... so"),
        (["", ", two"], ", two"),
        (["你好，", "世界"], "你好，世界"),
        (["我们明天去北京开会", "然后吃饭"], "我们明天去北京开会然后吃饭"),
        (["他说“好”", "然后……", "走了"], "他说“好”然后……走了"),
        (["東京に", "コンピュータ"], "東京にコンピュータ"),
        (["你好", "OK", "你好"], "你好 OK 你好"),
        (["안녕하세요", "오늘"], "안녕하세요 오늘"),
        (["สวัสดีครับ", "วันนี้"], "สวัสดีครับ วันนี้"),
    ],
)
def test_joined_texts_have_one_punctuation_mark_between_them(pieces, whole):
    assert join_texts(pieces) == whole
    assert transcript(*(Segment(0, 1, piece) for piece in pieces)).text == whole


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("In short,, the period", "In short, the period"),
        ("a , , ,b", "a,b"),
        (", the period", "the period"),
        ("as it were,,", "as it were,"),
        ("One, two... three?!", "One, two... three?!"),
        ("1,000", "1,000"),
    ],
)
def test_collapse_commas_keeps_one_of_several_commas(text, tidy):
    assert collapse_commas(text) == tidy


@pytest.mark.parametrize("name", ["Nell", "Speaker_0"])
def test_ambiguous_speaker_name_is_shown_beside_its_label(name: str) -> None:
    """Two people may have one name, and somebody may be called as another is labelled."""
    said = transcript(Segment(0.0, 1.0, "Yes.", 1), Segment(1.0, 2.0, "Yes.", 2))
    called = (SpeakerProfile(1, 0.0, name=name), SpeakerProfile(2, 0.0, name="Nell"))
    text = render_transcript(replace(said, voices=called), "text")
    other = "Speaker_2 (Nell)" if name == "Nell" else "Nell"
    assert text == f"[00:00:00.0] Speaker_1 ({name}): Yes.\n[00:00:01.0] {other}: Yes.\n"


async def test_short_result_is_rendered_on_the_event_loop_and_long_one_in_a_thread() -> None:
    word = Word(0.0, 0.5, "one")
    few = [Segment(0.0, 1.0, "said", words=(word,) * 9)] * (SHORT_RESULT // 10)
    assert await render_result(few, threading.get_ident) == threading.get_ident()
    assert await render_result([*few, few[0]], threading.get_ident) != threading.get_ident()


async def test_long_edited_line_and_subtitles_of_any_length_are_rendered_in_a_thread() -> None:
    edited = [Segment(0.0, 1.0, "word " * 10_000)]
    assert await render_result(edited, threading.get_ident) != threading.get_ident()
    short = [Segment(0.0, 1.0, "said")]
    told = await render_result(short, threading.get_ident, subtitles=True)
    assert told != threading.get_ident()
