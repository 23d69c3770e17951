"""Settings of upstreams, and the engine that they choose."""

import pytest

from sidecar.engines.engine_selection import choose_engine, choose_live_engine
from sidecar.errors import SettingsInvalid
from sidecar.plugins import load_settings
from sidecar.plugins.upstream import UpstreamSettings

BOX, FAR = "http://box:1", "https://far/v1/"


@pytest.fixture(autouse=True)
def _config(no_settings: object) -> None:
    """Leave out the settings of this machine."""


def test_upstreams_are_used_only_if_the_engine_is_upstream() -> None:
    assert choose_engine(load_settings(engine="scripted", upstream=(BOX,))).upstream is None
    chosen = choose_engine(load_settings(engine="upstream", upstream=(BOX, FAR)))
    assert chosen.reason == "as set; recordings go to box:1, far:443"
    assert chosen.upstream is not None
    assert chosen.upstream.urls == ("http://box:1", "https://far")


def test_two_paths_of_one_host_are_named_once_as_where_recordings_go() -> None:
    chosen = choose_engine(load_settings(engine="upstream", upstream=(f"{BOX}/one", f"{BOX}/two")))
    assert chosen.reason == "as set; recordings go to box:1"


def test_live_engine_never_uses_upstreams_of_recordings() -> None:
    settings = load_settings(engine="upstream", upstream=(BOX,))
    found, _ = choose_live_engine(settings, choose_engine(settings))
    assert found is None or found.upstream is None


def test_engine_upstream_without_its_plugin_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="engine: Input should be 'auto', 'vibevoice'"):
        load_settings(engine="upstream", plugins="-upstream")
    assert UpstreamSettings in type(load_settings()).groups()
