"""Settings of Wyoming: its port and its clients."""

from sidecar.config.setting_types import SettingsGroup, WordList, setting


class WyomingSettings(SettingsGroup):
    """Wyoming: Home Assistant's protocol, and its allowed clients."""

    wyoming_port: int | None = setting(
        None,
        "Port for Wyoming, on the same address as HTTP (docs/wyoming.md); 0 takes a free "
        "one, named in the ready line. If unset: no Wyoming.",
        ge=0,
        le=65535,
    )
    wyoming_clients: WordList = setting(
        (),
        "Addresses or networks whose Wyoming clients need no token, as that protocol has "
        "none. If unset: this machine, if the service requires no token.",
    )
