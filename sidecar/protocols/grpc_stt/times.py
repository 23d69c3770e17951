"""How long a stream waited and for what, as it is told at the end of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Times:
    """Sums over all finals of a stream, in seconds."""

    buffer_s: float = 0.0
    """The client waited, because as much sound was kept as may be."""
    queue_s: float = 0.0
    """Speech waited for the engine."""
    work_s: float = 0.0
    """The engine took."""
    emit_s: float = 0.0
    """The client took to read results."""
    finals: int = 0
    dropped: int = 0
    """Utterances that were not recognised: too many spoke."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As trailing metadata."""
        parts = (self.buffer_s, self.queue_s, self.work_s, self.emit_s)
        names = ("buffer-wait", "queue-wait", "inference", "response-emit", "total")
        return (
            *(
                (f"stt-decode-{name}-sec", f"{seconds:.6f}")
                for name, seconds in zip(names, (*parts, sum(parts)), strict=True)
            ),
            ("stt-decode-count", str(self.finals)),
            *((("dropped-utterances", str(self.dropped)),) if self.dropped else ()),
        )
