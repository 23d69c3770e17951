"""What a session says, as the results of this wire. Pure."""

from __future__ import annotations

from sidecar.interfaces.engine import AUTO
from sidecar.interfaces.languages import NAMES
from sidecar.interfaces.live import LiveOptions, Turns
from sidecar.interfaces.live_events import Final, LiveEvent, Partial, TurnEnded
from sidecar.protocols.grpc_stt.stt_pb2 import STTResult


class Results:
    """Of one stream. Clients put finals one behind the other and show a partial behind them: so
    each piece is told once as final. A session that ends with its only utterance has one final,
    with all pieces of that."""

    def __init__(self, options: LiveOptions) -> None:
        self._one = options.turns is Turns.ONE
        self._asked = "" if options.language == AUTO else options.language
        self._language = self._asked
        self._said: list[str] = []
        self._start: float | None = None
        self._shown = ""
        self.finals = 0

    def of(self, event: LiveEvent) -> STTResult | None:
        """What is to be sent, None where that is nothing."""
        match event:
            case Partial():
                return self._partial(event)
            case Final(segment=segment, language=language):
                if language not in ("", AUTO):
                    self._language = language
                if not (text := segment.text.strip()):
                    return None
                if self._one:
                    self._start = segment.start if self._start is None else self._start
                    self._said.append(text)
                    return None
                return self._final(text, segment.start, segment.end)
            case TurnEnded(end=end) if self._one and self._said:
                text, self._said = " ".join(self._said), []
                return self._final(text, self._start or 0.0, end)
        return None

    def _partial(self, event: Partial) -> STTResult | None:
        text = " ".join((*self._said, event.text)).strip()
        if not event.text or text == self._shown:
            return None
        self._shown = text
        stable = " ".join((*self._said, event.stable)).strip()
        result = self._result(text, event.start if self._start is None else self._start, event.end)
        result.committed_text = stable if text.startswith(stable) else ""
        result.unstable_text = text[len(result.committed_text) :].strip()
        return result

    def _final(self, text: str, start: float, end: float) -> STTResult:
        self.finals += 1
        self._shown, self._start = "", None
        result = self._result(text, start, end)
        result.is_final, result.committed_text = True, text
        return result

    def _result(self, text: str, start: float, end: float) -> STTResult:
        code = self._language.split("-")[0].lower()
        return STTResult(
            text=text,
            start_sec=start,
            end_sec=end,
            language_code=code,
            language=NAMES.get(code, "").title(),
            probability=1.0 if self._asked else 0.0,
        )
