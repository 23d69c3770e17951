"""A live session on its way to another service: all that it is, as bytes and back. Pure.

What its client was told need not be sent again goes along: so a client has nothing more to keep
than for a connection that breaks. What was said grows and never changes, so that stands beside the
rest, in pieces of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sidecar import errors
from sidecar.interfaces.live import Encoding, LiveOptions
from sidecar.interfaces.live_events import Understood, from_wire, to_wire
from sidecar.live.sessions.sent import Chunk, Commit, Forget, SoundState
from sidecar.live.sessions.told import LOOSE, STRIDE, Numbered, ToldState
from sidecar.transcripts.people import KnownVoice, VoicePrint

VERSION = 3
"""Of how it is written; what another version wrote is not read."""
_HEAD = 4
_PLAIN: dict[str, type[Commit | Forget]] = {"commit": Commit, "forget": Forget}


@dataclass(frozen=True, slots=True)
class Carried:
    """One session; ``age_s``: how long it has gone on, ``wire``: by which way its client came.

    Of sound the client was told that all of ``sound`` is here, and of orders ``acknowledged``: it
    sends what is behind both again. Of ``received_orders`` nothing is to be done any more; behind
    how much sound each of those came that it sends again, say ``places``.
    """

    options: LiveOptions
    told: ToldState
    sound: SoundState
    received_orders: int
    acknowledged: int
    places: tuple[tuple[int, float], ...]
    finishing: bool
    age_s: float
    wire: str

    def orphaned(self, after: int) -> Carried:
        """The same for who goes on for a service that died, and for a client that was told
        ``after``: what is told next has a number that nothing had.

        Raises:
            errors.SessionNotFound: the client was told more that stands than is here.
        """
        if after >= self.told.last + LOOSE:
            raise errors.SessionNotFound(
                "The service that had the live session died while the database was away."
            )
        return replace(self, told=replace(self.told, last=self.told.last + STRIDE))


def packed_story(said: Iterable[Numbered], known: tuple[KnownVoice, ...] | None = None) -> bytes:
    """Some of what was said, as bytes; and whom its owner knows, where that is new."""
    story: dict[str, Any] = {"said": [[each.number, to_wire(each.event)] for each in said]}
    if known is not None:
        story["known"] = [dataclasses.asdict(one) for one in known]
    return json.dumps(story, separators=(",", ":")).encode()


def packed(one: Carried) -> bytes:
    """A session as bytes, but for what was said and whom its owner knows."""
    items, raws = [], list[bytes]()
    for item in (*one.sound.past, *one.sound.items):
        if isinstance(item, Chunk):
            items.append([item.at, len(item.raw), item.encoding, item.rate])
            raws.append(item.raw)
        else:
            items.append(["commit" if isinstance(item, Commit) else "forget", item.number])
    told = one.told
    head = {
        "version": VERSION,
        "options": replace(one.options, known_voices=()).to_wire(),
        "last": told.last,
        "started": told.started,
        "voices": {number: dataclasses.asdict(voice) for number, voice in told.voices.items()},
        "sound": [one.sound.at, one.sound.samples, one.sound.settled, one.sound.wanted],
        "rate": [one.sound.rate, *one.sound.at_rate],
        "items": items,
        "past": len(one.sound.past),
        "context": [[each.start, each.end, each.tokens] for each in told.context],
        "orders": [one.received_orders, one.acknowledged, one.places],
        "finishing": one.finishing,
        "age_s": one.age_s,
        "wire": one.wire,
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((len(text).to_bytes(_HEAD, "big"), text, *raws))


def unpacked(data: bytes, story: Sequence[bytes]) -> Carried:
    """The session that `packed` wrote, and `packed_story` piece by piece.

    Raises:
        errors.SessionNotFound: another version wrote it, or it is none.
    """
    end = _HEAD + int.from_bytes(data[:_HEAD], "big")
    try:
        head = json.loads(data[_HEAD:end])
        if head["version"] != VERSION:
            raise ValueError(head["version"])
        pieces = [json.loads(piece) for piece in story]
        said = [each for piece in pieces for each in piece["said"]]
        head["options"]["known_voices"] = next(
            (piece["known"] for piece in reversed(pieces) if "known" in piece), ()
        )
        kept = tuple(Numbered(number, from_wire(event)) for number, event in said)
        return _read(head, data[end:], kept)
    except (KeyError, TypeError, ValueError, errors.EngineFailed):
        what = "Another version of this service had the live session, and this one cannot go on."
        raise errors.SessionNotFound(what) from None


def _read(head: dict[str, Any], raw: bytes, kept: tuple[Numbered, ...]) -> Carried:
    items, place = list[Chunk | Commit | Forget](), 0
    for item in head["items"]:
        if len(item) == 2:
            items.append(_PLAIN[item[0]](item[1]))
            continue
        at, size, encoding, rate = item
        items.append(Chunk(at, raw[place : place + size], Encoding(encoding), rate))
        place += size
    at, samples, settled, wanted = head["sound"]
    rate, since, before = head["rate"]
    voices = {int(number): VoicePrint(**voice) for number, voice in head["voices"].items()}
    context = tuple(Understood(start, end, tuple(tokens)) for start, end, tokens in head["context"])
    past = tuple(one for one in items[: head["past"]] if isinstance(one, Chunk))
    rest = tuple(items[head["past"] :])
    received, acknowledged, places = head["orders"]
    return Carried(
        LiveOptions.from_wire(head["options"]),
        ToldState(head["last"], head["started"], kept, voices, context),
        SoundState(at, samples, settled, rate, (since, before), rest, past, wanted),
        received,
        acknowledged,
        tuple((number, at) for number, at in places),
        head["finishing"],
        head["age_s"],
        head["wire"],
    )
