"""Word and speaker errors of the service beside those of the bare library, clip by clip.

Every clip goes through ``POST /transcribe`` of a real server, and through moonshine-voice's own
`Transcriber` (its stream, half a second at a time, identifying speakers at its default cadence of
1 s) in the same run. WER (jiwer, whisper's normalization), DER (0.25 s collar, overlap scored) and
cpWER (meeteval), per clip and pooled.

It needs the extra 'bench' (`pip install -e '.[bench]'`).

    python -m bench.accuracy                         # the service's default setting
    python -m bench.accuracy --diarization accurate  # at the library's own setting
    python -m bench.accuracy --no-library            # the service alone (a third of the time)
    python -m bench.accuracy --no-library --live     # and of each clip as a live session
    python -m bench.accuracy --no-library --words    # and how far aligned word times are off
    python -m bench.accuracy --no-library --confidence   # how many words of each are right, and how
                                                         # much of a segment is no speech

The clips are those of the folder VIBEVOICE_BENCH_AUDIO (its manifest.json: docs/bench.md). With
recordings of your own, each with its text beside it (talk.wav, talk.txt; with talk.rttm also DER),
and services that run, one with each engine or checkpoint (token: VIBEVOICE_CLIENT_TOKEN):

    python -m bench.accuracy --recordings mine --server http://127.0.0.1:8765 http://127.0.0.1:8766
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from vibevoice_asr_client import Client, Summary

from bench.metrics import (
    Clip,
    Piece,
    Scores,
    check_packages,
    check_references,
    clips,
    own_clips,
    right_words,
    score,
    without_text,
)
from bench.serving import argument_parser, ours, workshop
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import DiarizationEffort, WindowingMode
from sidecar.transcripts.transcript import Segment
from sidecar.transcripts.word_alignment import align_words
from sidecar.transcripts.word_timing import estimate_word_times

Hypothesis = list[Piece]
RATE = 16_000
CONFIDENCES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.0)
"""Lower ends of the rows of `confidence_table`."""
NO_SPEECH = (0.0, 0.05, 0.1, 0.2)
"""The same of `no_speech_table`."""
_CHUNK = RATE // 2


def client_of(url: str) -> httpx.Client:
    """A client of a service, with the token of VIBEVOICE_CLIENT_TOKEN."""
    token = os.environ.get("VIBEVOICE_CLIENT_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=None)


def address_side(url: str, **fields: str) -> tuple[str, Callable[[Clip], Hypothesis]]:
    """The address with its engine and precision for the heading, and what the service answers to a
    recording with these fields."""
    client = client_of(url)
    try:
        health = client.get("/health").json()
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
        raise SystemExit(f"No service answers at {url}: {error}") from None

    def transcribe(clip: Clip) -> Hypothesis:
        with clip.path.open("rb") as audio:
            answer = client.post("/transcribe", files={"audio": audio}, data=fields)
        if answer.is_error:
            raise SystemExit(f"{url}: {clip.name}: {answer.text}")
        return [
            Piece(item["start_time"], item["end_time"], item["speaker"], item["text"])
            for item in answer.json()["segments"]
        ]

    parts = (health.get(key) for key in ("engine", "precision"))
    return f"{url} ({', '.join(filter(None, parts))})", transcribe


def live_side(url: str) -> Callable[[Clip], Hypothesis]:
    """What the summary of a live session has that gets a recording as fast as it is taken."""
    client = Client(url, token=os.environ.get("VIBEVOICE_CLIENT_TOKEN"))

    def transcribe(clip: Clip) -> Hypothesis:
        audio = np.clip(decode_audio_file(clip.path, RATE), -1, 1)
        sound = (audio * 32767).astype("<i2").tobytes()
        with client.live(rate=RATE, partials=False) as live:

            def speak() -> None:
                for begin in range(0, len(sound), 2 * _CHUNK):
                    live.send(sound[begin : begin + 2 * _CHUNK])
                live.finish()

            speaking = threading.Thread(target=speak)
            speaking.start()
            summary = next(event for event in live if isinstance(event, Summary))
            speaking.join()
        segments = summary.transcript.segments
        return [Piece(one.start, one.end, one.speaker, one.text) for one in segments]

    return transcribe


def word_distances(url: str, chosen: list[Clip]) -> str:
    """How far the starts of aligned and of evenly spread words are from those of the service's
    engine (the embedded one's are 13 ms off), over the same segments."""
    apart: dict[str, list[float]] = {"aligned": [], "spread": []}
    client = client_of(url)
    for clip in chosen:
        files, data = {"audio": clip.path.read_bytes()}, {"words": "true"}
        answer = client.post("/transcribe", files=files, data=data).json()
        audio = decode_audio_file(clip.path, RATE)
        for one in answer["segments"]:
            bare = Segment(one["start_time"], one["end_time"], one["text"], 0)
            for guess in (align_words(bare, audio, RATE), estimate_word_times(bare)):
                pairs = zip(one["words"], guess.words, strict=True)
                apart[guess.words_by] += [abs(a["start_time"] - b.start) for a, b in pairs]
    return "; ".join(
        f"{name}: median {1000 * np.median(far):.0f} ms, p95 {1000 * np.percentile(far, 95):.0f} ms"
        for name, far in apart.items()
    )


def confidence_table(url: str, chosen: list[Clip]) -> str:
    """How many words of the service are right, by their confidence, over the clips with a text."""
    rows: dict[float, list[tuple[float, bool]]] = {low: [] for low in CONFIDENCES}
    client = client_of(url)
    for clip in filter(lambda one: one.text, chosen):
        print(f"{clip.name}: confidence …", file=sys.stderr)
        files = {"audio": clip.path.read_bytes()}
        data = {"words": "true", "diarize": "false"}
        answer = client.post("/transcribe", files=files, data=data).json()
        words = [word for one in answer["segments"] for word in one["words"]]
        known = [(word["text"], word["confidence"]) for word in words if "confidence" in word]
        for confidence, right in right_words(clip, known):
            rows[max(low for low in CONFIDENCES if low <= confidence)].append((confidence, right))
    lines = ["| confidence from | words | their mean | right, % |", "| --- | --- | --- | --- |"]
    for low, found in rows.items():
        if found:
            mean, right = np.mean(found, axis=0)
            lines.append(f"| {low:g} | {len(found)} | {mean:.3f} | {100 * right:.1f} |")
    return "\n".join(lines)


def no_speech_table(url: str, chosen: list[Clip]) -> str:
    """How much of the segments is outside of the turns of the references, by their probability that
    nobody speaks. Pauses within a turn count as speech."""
    rows: dict[float, list[tuple[float, float]]] = {low: [] for low in NO_SPEECH}
    client = client_of(url)
    for clip in chosen:
        if not (turns := clip.turns):
            continue
        print(f"{clip.name}: no speech …", file=sys.stderr)
        answer = client.post("/transcribe", files={"audio": clip.path.read_bytes()}).json()
        for one in answer["segments"]:
            if (probability := one.get("no_speech_probability")) is None:
                continue
            times = np.linspace(one["start_time"], one["end_time"], 200)
            within = [any(start <= at <= end for start, end, _ in turns) for at in times]
            rows[max(low for low in NO_SPEECH if low <= probability)].append(
                (probability, 1 - float(np.mean(within)))
            )
    lines = ["| no speech from | segments | their mean | no speech |", "| --- | --- | --- | --- |"]
    for low, found in rows.items():
        if found:
            mean, outside = np.mean(found, axis=0)
            lines.append(f"| {low:g} | {len(found)} | {mean:.3f} | {outside:.3f} |")
    return "\n".join(lines)


def library_side(clip: Clip) -> Hypothesis:
    """What the bare library finds; a line's text goes to the voice that has most of the line."""
    from moonshine_voice import ModelArch, get_model_path
    from moonshine_voice.transcriber import Transcriber

    audio = decode_audio_file(clip.path, RATE)
    options = {"return_audio_data": "false", "identify_speakers": "true"}
    model = get_model_path("tiny-en")
    with (
        Transcriber(model, ModelArch.TINY, options=options) as library,
        library.create_stream() as stream,
    ):
        stream.start()
        for start in range(0, len(audio), _CHUNK):
            stream.add_audio(audio[start : start + _CHUNK], RATE)
        lines = stream.stop().lines
    pieces: Hypothesis = []
    for line in lines:
        spans = line.speaker_spans or []
        if not spans:
            pieces.append(Piece(line.start_time, line.start_time + line.duration, "-", line.text))
            continue
        longest = max(spans, key=lambda span: span.duration)
        for span in spans:
            text = line.text if span is longest else ""
            end = span.start_time + span.duration
            pieces.append(Piece(span.start_time, end, str(span.speaker_index), text))
    return pieces


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--diarization",
        choices=[one.value for one in DiarizationEffort],
        default="balanced",
        help="how the service distinguishes the speakers",
    )
    parser.add_argument(
        "--windows",
        choices=[one.value for one in WindowingMode],
        default="auto",
        help="how VibeVoice-ASR takes a long recording",
    )
    parser.add_argument("--no-library", action="store_true")
    parser.add_argument("--live", action="store_true", help="live sessions, too")
    parser.add_argument("--words", action="store_true", help="word times, too")
    parser.add_argument("--confidence", action="store_true", help="right words by confidence, too")
    parser.add_argument("--only", default="", help="part of a clip's name")
    parser.add_argument("--json", help="write the hypotheses to this file")
    parser.add_argument("--recordings", type=Path, help="folder with NAME.txt beside each of them")
    parser.add_argument(
        "--language", default="en", help="of these recordings: how words are normalized"
    )
    parser.add_argument("--server", nargs="+", default=[], help="addresses of running services")
    args = parser.parse_args()
    if not args.recordings:
        check_references()
    every = own_clips(args.recordings, args.language) if args.recordings else clips()
    chosen = [clip for clip in every if args.only in clip.name]
    written: dict[str, object] = {}
    with contextlib.ExitStack() as stack:
        fields = {"diarization": args.diarization, "windows": args.windows}
        sides = dict(address_side(url, **fields) for url in args.server)
        check_packages()
        if not sides:
            folder = stack.enter_context(workshop())
            server = stack.enter_context(ours(folder, engine="moonshine"))
            args.server = [f"http://127.0.0.1:{server.port}"]
            _, sides["service"] = address_side(args.server[0], **fields)
        if not args.no_library and "service" in sides:
            sides["library"] = library_side
        if args.live:
            sides["live"] = live_side(args.server[0])
        if args.recordings and (names := without_text(args.recordings)):
            print(f"left out, no text: {', '.join(names)}", file=sys.stderr)
        head = " | ".join(f"{name} WER | DER | cpWER" for name in sides)
        print(f"| clip | {head} |\n|{'---|' * (1 + 3 * len(sides))}")
        pooled = {name: Scores() for name in sides}
        for clip in chosen:
            cells = []
            for name, transcribe in sides.items():
                print(f"{clip.name}: {name} …", file=sys.stderr)
                hypothesis = transcribe(clip)
                written[f"{name}/{clip.name}"] = [vars(piece) for piece in hypothesis]
                scores = score(clip, hypothesis)
                pooled[name] += scores
                cells.append(scores.row())
            print(f"| {clip.name} | {' | '.join(cells)} |", flush=True)
        total = " | ".join(scores.row() for scores in pooled.values())
        print(f"| **pooled, {len(chosen)} clips** | {total} |")
        if args.words:
            print(f"\nWord starts beside the engine's: {word_distances(args.server[0], chosen)}.")
        if args.confidence:
            print(f"\n{confidence_table(args.server[0], chosen)}")
            print(f"\n{no_speech_table(args.server[0], chosen)}")
    print(f"\nFields of the requests: {fields}.")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(written, file)


if __name__ == "__main__":
    main()
