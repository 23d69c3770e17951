"""Sound that the scripted engine hears as speech: the loud is said, and how loud is the word."""

import array

RATE = 16_000


def sound(*parts: tuple[float, float], rate: int = RATE) -> bytes:
    """Parts of so many seconds, so loud (0 to 1), as pcm16."""
    samples = array.array("h")
    for seconds, loud in parts:
        samples.extend([round(loud * 32767)] * round(seconds * rate))
    return samples.tobytes()


def tone(seconds: float, loud: float = 0.3) -> bytes:
    """One part: what is heard as speech, or with a loudness of 0 as silence."""
    return sound((seconds, loud))


def talk(*louds: float, rate: int = RATE) -> bytes:
    """A turn of 1.5 s for each, and a pause behind it."""
    turns = [part for loud in louds for part in ((1.5, loud), (0.8, 0.0))]
    return sound((0.5, 0.0), *turns, rate=rate)


def recorded(raw: bytes) -> bytes:
    """The same, as loud, without the constant offset that is taken from recordings."""
    samples = array.array("h", raw)
    samples[1::2] = array.array("h", [-one for one in samples[1::2]])
    return samples.tobytes()


def pieces(raw: bytes, size: int = 3200) -> list[bytes]:
    """Of 0.1 s each."""
    return [raw[at : at + size] for at in range(0, len(raw), size)]
