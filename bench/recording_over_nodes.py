"""One recording over several nodes: ``python -m bench.recording_over_nodes --minutes 60 --nodes 4
--speed 10``.

Real services with the scripted engine, of known speed, behind one with ``engine=upstream``: once
with a single node, once with all. Told are the wall times and their ratio, and whether words, times
and speakers are the same. What the front does itself (decoding, whose voice it is) is in both
walls. Many recordings at once are `bench.scale`'s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import serving
from bench.serving import Server


@contextlib.contextmanager
def front(folder: Path, count: int, speed: float, piece_s: float) -> Iterator[Server]:
    """A service in front of ``count`` nodes, all of them warm."""
    with contextlib.ExitStack() as all_:
        there = [
            all_.enter_context(serving.ours(folder, engine="scripted", scripted_speed=str(speed)))
            for _ in range(count)
        ]
        here = all_.enter_context(
            serving.ours(
                folder,
                engine="upstream",
                upstream=",".join(f"http://127.0.0.1:{one.port}" for one in there),
                test_limits=json.dumps({"upstream_piece": piece_s}),
            )
        )
        warm = serving.looped(folder, 1.0, "wav").read_bytes()
        for one in [*there, here]:
            one.transcribe(warm)
        yield here


def heard(server: Server, recording: Path, diarize: str) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until the whole transcript is there, and its segments."""
    sound = recording.read_bytes()
    begun = time.perf_counter()
    answer = server.transcribe(sound, diarize=diarize)
    return time.perf_counter() - begun, answer["segments"]


def main() -> int:
    """Run it; 1 where the transcripts differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--speed", type=float, default=10.0, help="seconds of audio a second")
    parser.add_argument("--piece", type=float, default=300.0, help="seconds of audio sent at once")
    parser.add_argument("--diarize", choices=("true", "false"), default="true")
    given = parser.parse_args()
    walls, found = [], []
    with serving.workshop() as folder:
        recording = serving.looped(folder, given.minutes * 60, "wav")
        for count in (1, given.nodes):
            with front(folder, count, given.speed, given.piece) as here:
                wall_s, segments = heard(here, recording, given.diarize)
                walls.append(wall_s)
                found.append(segments)
                print(f"{count} node(s): {wall_s:.1f} s for {given.minutes:g} min", flush=True)
    one, many = found
    speakers = [[part.get("speaker") for part in segments] for segments in found]
    words = [
        [(part["text"], part["start_time"], part["end_time"]) for part in all_] for all_ in found
    ]
    print(
        f"ratio {walls[1] / walls[0]:.3f}; {len(one)} and {len(many)} segments; words "
        f"{'the same' if words[0] == words[1] else 'DIFFER'}; {len(set(speakers[0]))} speakers, "
        f"{'the same' if speakers[0] == speakers[1] else 'DIFFER'}"
    )
    return int(words[0] != words[1] or speakers[0] != speakers[1])


if __name__ == "__main__":
    sys.exit(main())
