"""What comes a second time: a client sends all again that it was not told is here. Pure."""

from __future__ import annotations

from sidecar.live.sessions.session import Session


class Resent:
    """Of one connection: from where its client goes on, at ``rate`` samples a second, and what of
    that is here already."""

    def __init__(self, session: Session, rate: int) -> None:
        self._session, self._rate = session, rate
        seconds, self._orders = session.acknowledged  # sums of samples: off by a millionth of one
        self._samples = round(seconds * rate)

    @property
    def acknowledged(self) -> tuple[int, int]:
        """Samples and orders that need not be sent again. Of what is being sent again no more than
        has come again: else the client would leave out what it has not sent yet."""
        seconds, orders = self._session.acknowledged
        return min(round(seconds * self._rate), self._samples), min(orders, self._orders)

    def sound(self, raw: bytes, width: int) -> bytes:
        """What of the next sound did not come before; ``width``: bytes of a sample."""
        there = round(self._session.received_s * self._rate) - self._samples
        self._samples += len(raw) // width
        return raw[there * width :] if there > 0 else raw

    def order(self) -> bool:
        """Whether the next order came before."""
        self._orders += 1
        return self._orders <= self._session.received_orders
