"""The setting `talk_ports`."""

import pytest

from sidecar import errors
from sidecar.plugins import load_settings


@pytest.mark.parametrize("ports", ["modern", "8005:0", "70000"])
def test_invalid_talk_ports_are_refused_with_the_name_of_the_setting(ports: str) -> None:
    with pytest.raises(errors.SettingsInvalid, match="talk_ports"):
        load_settings(talk_ports=ports)


@pytest.mark.parametrize(
    ("said", "ports"),
    [
        ("original", (8005, 3000)),
        ("8006", (8006, 3000)),
        ("8006:3001", (8006, 3001)),
        ("0", (0, 3000)),
    ],
)
def test_talk_ports_are_given_by_name_or_number(said, ports):
    assert load_settings(talk_ports=said).talk_ports == ports
