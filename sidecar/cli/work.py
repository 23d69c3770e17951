"""What is measured: live sessions, or recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sidecar.cli.course import Course, Mode, course_of
from sidecar.cli.side import FileWire, LiveWire, Side
from sidecar.cli.sweep import Wire
from sidecar.cli.talking import Tempo

Opens = Callable[[Side], AbstractAsyncContextManager[Wire]]
"""Makes ready to visit a side."""


@dataclass(frozen=True, slots=True)
class Ready:
    """All that is needed: what session N does, and what one does that only warms a side up.

    ``spread_s``: sessions that begin together do so within that.
    """

    course: Callable[[int], Course]
    warm: Course
    opens: Opens
    spread_s: float = 0.0


class Work(Protocol):
    """What is to be done on each side."""

    def ready(self) -> Ready:
        """Look at the recordings.

        Raises:
            errors.SidecarError: one cannot be used.
        """

    def wire_named(self, name: str) -> LiveWire | FileWire | None:
        """A wire by which it can be done; None where that is no name of one."""


@dataclass(frozen=True, slots=True)
class LiveWork:
    """Sessions of some ``seconds``, with utterances of ``talk_s`` out of ``audio``."""

    audio: Path | None = None
    mode: Mode = Mode.TALK
    seconds: float = 20.0
    talk_s: float = 3.0
    pause_s: float = 4.0
    tempo: Tempo = field(default_factory=Tempo)

    def ready(self) -> Ready:
        """Cut the utterances."""
        from sidecar.cli.demo import sample
        from sidecar.cli.sample import clips_of

        idle = self.mode is Mode.IDLE
        clips = [] if idle else clips_of(self.audio or sample(), self.talk_s)

        def course(number: int) -> Course:
            return course_of(self.mode, clips, self.seconds, self.pause_s, number)

        warm = course_of(self.mode, clips, 0.0, self.pause_s, 0)
        return Ready(course, warm, self._opened, self.tempo.chunk_s)

    def wire_named(self, name: str) -> LiveWire | None:
        """Of those for live audio."""
        return LiveWire(name) if name in tuple(LiveWire) else None

    def _opened(self, side: Side) -> AbstractAsyncContextManager[Wire]:
        from sidecar.cli import ours, streaming, stt

        match side.wire:
            case LiveWire.STREAMING:
                return streaming.opened(side, self.tempo)
            case LiveWire.GRPC:
                return stt.opened(side, self.tempo)
        return ours.opened(side, self.tempo)


@dataclass(frozen=True, slots=True)
class FileWork:
    """Clients that each send ``repeat`` recordings one after another."""

    files: Sequence[Path] = ()
    repeat: int = 2

    def ready(self) -> Ready:
        """Look at the recordings."""
        from sidecar.cli import files
        from sidecar.cli.demo import sample
        from sidecar.cli.recordings import spread
        from sidecar.cli.sample import recordings_of

        recordings = recordings_of(spread(self.files) or [sample()])

        def opened(side: Side) -> AbstractAsyncContextManager[Wire]:
            return files.opened(side, recordings, self.repeat)

        return Ready(lambda _: Course(), Course(), opened)

    def wire_named(self, name: str) -> FileWire | None:
        """Of those for recordings."""
        return FileWire(name) if name in tuple(FileWire) else None
