"""The library `sounddevice` with a microphone in which somebody speaks for ever, or once if it is
`UNPLUGGED`, and a loudspeaker that takes all there is, as fast as time goes, and writes it to the
file `HEARD`."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from scripted_speech import pieces, talk

PortAudioError = OSError
MICROPHONE = {"name": "Desk", "max_input_channels": 1, "max_output_channels": 0}
LOUDSPEAKER = {"name": "Boom", "max_input_channels": 0, "max_output_channels": 1}


class default:  # noqa: N801
    device = (0, 1)


def query_devices(device: object = None, kind: str | None = None) -> Any:
    found = [one | {"default_samplerate": 16_000.0} for one in (MICROPHONE, LOUDSPEAKER)]
    return found if kind is None else found[0]


class Stream:
    latency = 0.0

    def __init__(self, callback: Callable[..., None], device: object = None, **_: Any) -> None:
        if device not in (None, 0, "Desk", "Boom"):
            raise ValueError(f"no device {device!r}")
        self.callback = callback

    def __enter__(self) -> None:
        self.open = True
        threading.Thread(target=self.go_on, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.open = False


class RawInputStream(Stream):
    def __init__(self, channels: int, **more: Any) -> None:
        if channels > MICROPHONE["max_input_channels"]:
            raise PortAudioError("Invalid number of channels [PaErrorCode -9998]")
        super().__init__(**more)

    def go_on(self) -> None:
        while self.open:
            for piece in pieces(talk(0.3, 0.2)):
                if self.open:
                    self.callback(memoryview(piece), 1600, None, None)
                time.sleep(0.1)  # real time: the pace of speech, or slower
            if "UNPLUGGED" in os.environ:
                return


class RawOutputStream(Stream):
    def go_on(self) -> None:
        with open(os.environ["HEARD"], "wb", buffering=0) as heard:
            while self.open:
                out = bytearray(2 * 320)
                self.callback(memoryview(out), 320, None, None)
                heard.write(out)
                time.sleep(0.02)  # real time: as fast as a loudspeaker takes it, or slower
