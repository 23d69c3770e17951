"""Wyoming: Home Assistant's protocol, and who may speak it here."""

from __future__ import annotations

from pydantic import Field

from sidecar.config.group import Group
from sidecar.config.settings_values import Words


class Wyoming(Group):
    """The settings of it."""

    wyoming_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Port for Wyoming, on the same address as HTTP (docs/wyoming.md); 0 takes a free one, "
            "which the ready line tells. There is none if unset."
        ),
    )
    wyoming_clients: Words = Field(
        (),
        description=(
            "Addresses or networks whose Wyoming clients need no token, as that protocol has none. "
            "If unset: this machine, where nobody needs one."
        ),
    )
