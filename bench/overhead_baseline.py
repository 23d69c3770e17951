"""The bare side of `bench.overhead`: what the same machine does without a server.

``python -m bench.overhead_baseline engine`` runs our `MoonshineEngine` over `probe_audio` and
`open_audio` in a plain process. ``python -m bench.overhead_baseline library`` feeds
moonshine-voice's own `Transcriber` with the audio that the same decoder gives: with speakers, half
a second at a time into a stream that identifies them at its default cadence; without, in one call.
Both keep their models loaded, decode within the measured time, and take one JSON line per recording
on stdin: ``{"path": ..., "diarize": ...}``, answered with ``{"seconds": ..., "characters": ...}``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.audio.audio_decoder import decode_audio_file, open_audio, probe_audio
from sidecar.engines.moonshine import SPEC, MoonshineEngine
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions, TranscriptionRequest
from sidecar.transcripts.transcript import Finished

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber

Side = Callable[[str, bool], str]
_MAX_S = 5 * 3600.0
SAMPLE_RATE = SPEC.sample_rate
_PIECE = SAMPLE_RATE // 2


def engine_side() -> Side:
    """Our engine, loaded."""
    engine = MoonshineEngine()
    list(engine.load(LoadOptions()))

    def text_of(path: str, diarize: bool) -> str:
        with open(path, "rb", buffering=0) as file:
            facts = probe_audio(file.fileno(), _MAX_S)
            with open_audio(file.fileno(), facts, rate=SAMPLE_RATE, max_s=_MAX_S) as audio:
                options = TranscribeOptions(diarize=diarize)
                events = list(
                    engine.transcribe(TranscriptionRequest(audio, options, lambda: False))
                )
        last = events[-1]
        assert isinstance(last, Finished)
        return " ".join(segment.text for segment in last.transcript.segments)

    return text_of


def library_side() -> Side:
    """The library by itself; with speakers and without, each loaded at its first use."""
    from moonshine_voice import ModelArch, get_model_path
    from moonshine_voice.transcriber import Transcriber

    loaded: dict[bool, Transcriber] = {}

    def transcriber(diarize: bool) -> Transcriber:
        if diarize not in loaded:
            options = {"return_audio_data": "false", "identify_speakers": str(diarize).lower()}
            loaded[diarize] = Transcriber(
                get_model_path("tiny-en"), ModelArch.TINY, options=options
            )
        return loaded[diarize]

    def text_of(path: str, diarize: bool) -> str:
        audio = decode_audio_file(path, SAMPLE_RATE)
        if diarize:
            with transcriber(True).create_stream(update_interval=0.5) as stream:
                stream.start()
                for start in range(0, len(audio), _PIECE):
                    stream.add_audio(audio[start : start + _PIECE], SAMPLE_RATE)
                lines = stream.stop().lines
        else:
            lines = transcriber(False).transcribe_without_streaming(audio, SAMPLE_RATE).lines
        return " ".join(line.text for line in lines)

    return text_of


def main() -> None:
    """Answer recordings until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("side", choices=("engine", "library"))
    side = engine_side() if parser.parse_args().side == "engine" else library_side()
    for line in sys.stdin:
        wanted = json.loads(line)
        begun = time.perf_counter()
        text = side(wanted["path"], wanted["diarize"])
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "characters": len(text)}), flush=True)


if __name__ == "__main__":
    main()
