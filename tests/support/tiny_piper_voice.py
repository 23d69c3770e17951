"""A Piper voice that really runs in the library of moonshine-voice: 1 kB, and nobody's voice.

Its model is ONNX, written field by field (onnx.proto3), with the inputs and the output that Piper's
exports have: numbers of phonemes, how many, and three scales. Each phoneme is a level that is held
for 200 samples times the second scale, which is how long speech is to be. Turkish, because the
library reads that aloud by rules, without a dictionary.
"""

import json
import struct
from pathlib import Path

from sidecar.plugins.conversation.tts.installed_voices import PulledFile, PulledVoice, PulledVoices

LANGUAGE = "tr-tr"
VOICE = "piper_tr_TR-dfki-medium"
OTHER = "piper_tr_TR-fettah-medium"
"""Another that the library knows for the language."""
PHONEMES = "abcdefghijklmnopqrstuvwxyz .,!?ɑɛɯøʃʒɾɡœɟcçðəɪʊθŋɫˈˌː"
FLOAT, INT = 1, 7
HELD = 200


def files(voice: str = VOICE, note: str = "") -> dict[str, bytes]:
    """What `pull voice` has to bring, by its path; a ``note`` in the model makes it longer."""
    stem = f"tr/piper-voices/{voice.removeprefix('piper_')}.onnx"
    return {stem: model(note), f"{stem}.json": json.dumps(_config()).encode()}


def pulled(folder: Path, *names: str) -> Path:
    """``folder`` as `pull voice` leaves it."""
    there = PulledVoices(folder)
    for name in names or (VOICE,):
        for key, content in files(name).items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(content)
            there = there.with_file(key, PulledFile(len(content), "", "size"))
        there = there.with_voice(PulledVoice(name, LANGUAGE, tuple(files(name))))
    there.write()
    return folder


def model(note: str = "") -> bytes:
    graph = b"".join(
        [
            _node("Cast", ["input"], ["level"], to=FLOAT),
            _node("Unsqueeze", ["level", "two"], ["column"]),
            _node("Gather", ["scales", "one"], ["scale"]),
            _node("Mul", ["scale", "held"], ["long"]),
            _node("Cast", ["long"], ["width"], to=INT),
            _node("Concat", ["pair", "width"], ["shape"], axis=0),
            _node("Expand", ["column", "shape"], ["wide"]),
            _node("Reshape", ["wide", "flat"], ["output"]),
            _text(2, "tiny"),
            _tensor("one", INT, struct.pack("<q", 1)),
            _tensor("two", INT, struct.pack("<q", 2)),
            _tensor("pair", INT, struct.pack("<2q", 1, 1)),
            _tensor("flat", INT, struct.pack("<4q", 1, 1, 1, -1)),
            _tensor("held", FLOAT, struct.pack("<f", HELD)),
            _value(11, "input", INT, [1, "phonemes"]),
            _value(11, "input_lengths", INT, [1]),
            _value(11, "scales", FLOAT, [3]),
            _value(12, "output", FLOAT, [1, 1, 1, "samples"]),
        ]
    )
    opset = _message(8, _text(1, "") + _number(2, 13))
    return _number(1, 8) + _text(6, note) + _message(7, graph) + opset


def _config() -> dict[str, object]:
    numbers = {letter: [at + 3] for at, letter in enumerate(PHONEMES)}
    return {
        "audio": {"sample_rate": 22_050},
        "espeak": {"voice": "tr"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_id_map": {"_": [0], "^": [1], "$": [2], **numbers},
        "num_symbols": 256,
        "num_speakers": 1,
        "speaker_id_map": {},
    }


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _node(operation: str, inputs: list[str], outputs: list[str], **numbers: int) -> bytes:
    names = [_text(1, name) for name in inputs] + [_text(2, name) for name in outputs]
    integers = [
        _message(5, _text(1, name) + _number(3, value) + _number(20, 2))
        for name, value in numbers.items()
    ]
    return _message(1, b"".join([*names, _text(4, operation), *integers]))


def _tensor(name: str, kind: int, raw: bytes) -> bytes:
    count = len(raw) // (8 if kind == INT else 4)
    return _message(5, _number(1, count) + _number(2, kind) + _text(8, name) + _message(9, raw))


def _value(field: int, name: str, kind: int, shape: list[int | str]) -> bytes:
    dims = (_number(1, one) if isinstance(one, int) else _text(2, one) for one in shape)
    tensor = _number(1, kind) + _message(2, b"".join(_message(1, dim) for dim in dims))
    return _message(field, _text(1, name) + _message(2, _message(1, tensor)))
