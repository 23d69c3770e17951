"""How well an echo is told from a person: made-up rooms around real speech.

A reply is read aloud by one of the clips of the wheel or by espeak. What the microphone hears is
that, late, through a loudspeaker and a room, with noise; or somebody else; or both at once. What is
measured is the likeness (`conversation.acoustic_echo`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from wheel_recordings import clip

from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions, SynthesizedAudio
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.plugins.conversation.acoustic_echo import EchoDetector
from sidecar.plugins.conversation.tts.espeak_tts import EspeakTts

RATE = 16_000
CLIPS = ("endgame_nagg_nell", "two_cities", "beckett")
ANSWER = (
    "The capital of France is Paris, and it lies on the river Seine. Would you like tea or coffee? "
    "There is a train at nine in the morning, and another one in the afternoon, which costs less. "
)
LEAD_S = 1.0
LOUD = 0.03
"""Root mean square of what is said at least, beside a clip's loudest."""

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What the microphone hears: the reply, if ``echo``, in a room of that reverberation (seconds,
    and dB by which the direct sound is louder), and somebody ``person_db`` louder than that."""

    name: str
    echo: bool = True
    person_db: float | None = None
    room_s: float = 0.3
    direct_db: float = 0.0
    noise_db: float = 15.0


ECHO = Scene("echo")
FAR = Scene("echo in a bare room, far away", room_s=0.6, direct_db=-3.0)
PERSON = Scene("somebody else", echo=False, person_db=0.0)
LOUDER = Scene("both, the person 6 dB louder", person_db=6.0)
EQUAL = Scene("both, as loud", person_db=0.0)


@cache
def voices() -> dict[str, Samples]:
    """Real speech by clip, and espeak's, as loud as each other."""
    found = {name: clip(name).astype(float) for name in CLIPS}
    engine = EspeakTts()
    list(engine.load(LoadOptions()))
    said = engine.say(ANSWER * 2, SynthesisOptions("", "en", rate=RATE), lambda: False)
    pcm = b"".join(sound.pcm for sound in said)
    found["espeak"] = np.frombuffer(pcm, "<i2") / 32768
    return {name: one * 0.1 / np.sqrt(np.mean(one**2)) for name, one in found.items()}


def some(chance: np.random.Generator, voice: Samples, seconds: float) -> tuple[int, Samples]:
    """Speech out of it, and where it lies: no pause at either end."""
    count, edge = round(seconds * RATE), RATE // 10
    while True:
        at = int(chance.integers(round(LEAD_S * RATE), len(voice) - count - RATE))
        found = voice[at : at + count]
        if all(np.sqrt(np.mean(one**2)) > LOUD for one in (found[:edge], found[-2 * edge : -edge])):
            return at, found


def in_room(chance: np.random.Generator, sound: Samples, scene: Scene) -> Samples:
    """As a loudspeaker and a room make it."""
    size = 1 << (len(sound) + RATE).bit_length()
    hz = np.fft.rfftfreq(size, 1 / RATE)
    after = np.arange(round(scene.room_s * RATE)) / RATE
    room = chance.standard_normal(len(after)) * np.exp(-6.9 * after / scene.room_s)
    room *= 10 ** (-scene.direct_db / 20) / np.sqrt(np.sum(room**2))
    room[0] += 1
    lowest, highest = chance.uniform(150, 400), chance.uniform(3500, 7000)
    speaker = 1 / (1 + (lowest / np.maximum(hz, 1)) ** 4) / (1 + (hz / highest) ** 4)
    heard = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(room, size) * speaker, size)
    return heard[: len(sound)]


def likeness(
    chance: np.random.Generator, played: Samples, person: Samples, seconds: float, scene: Scene
) -> float:
    """Of one utterance that lasts so long, in one scene."""
    at, _ = some(chance, played, seconds)
    reply = played[at - round(LEAD_S * RATE) : at + round((seconds + 0.5) * RATE)]
    delay = round(chance.uniform(0.02, 0.5) * RATE)
    late = np.concatenate([np.zeros(delay), reply])
    begin = round(LEAD_S * RATE) + delay
    count = round(seconds * RATE)
    echo = in_room(chance, late, scene)[begin : begin + count]
    loud = np.sqrt(np.mean(echo**2))
    heard = echo if scene.echo else np.zeros(count)
    if scene.person_db is not None:
        other = some(chance, person, seconds)[1]
        heard = heard + other * loud / np.sqrt(np.mean(other**2)) * 10 ** (scene.person_db / 20)
    heard = heard * chance.uniform(0.2, 1.0)
    noise = np.sqrt(np.mean(heard**2)) * 10 ** (-scene.noise_db / 20)
    heard = heard + chance.standard_normal(count) * noise
    evidence, ended = EchoDetector(), (begin + count) / RATE
    evidence.emit(1, SynthesizedAudio(pcm16(reply), RATE))
    evidence.play(1, len(reply) / RATE, len(reply) / RATE)
    evidence.hear(pcm16(heard), SampleEncoding.PCM16, RATE, ended)
    return compared(evidence, begin / RATE, ended, ended) or 0.0


def compared(evidence: EchoDetector, start: float, end: float, ended: float) -> float | None:
    """An utterance beside what was played then."""
    compare = evidence.comparison(start, end, ended)
    return None if compare is None else compare()


def pcm16(samples: Samples) -> bytes:
    """As it is sent."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def measured(scene: Scene, seconds: float, times: int, seed: int = 1) -> Iterator[float]:
    """Likenesses, each of two voices that differ."""
    chance, known = np.random.default_rng(seed), voices()
    for _ in range(times):
        played, person = chance.choice([*known], 2, replace=False)
        yield likeness(chance, known[played], known[person], seconds, scene)
