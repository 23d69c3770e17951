"""*Try a sample* on the empty page, and the sample as a file."""

from pathlib import Path

import moonshine_voice
import pytest
from browser_visitor import Visitor
from service_process import StartServer
from test_page import TOKEN, opened

from sidecar import cli

SOUND = (Path(moonshine_voice.get_assets_path()) / "endgame_nagg_nell.wav").read_bytes()


def test_empty_page_transcribes_the_sample_also_with_a_token(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token=TOKEN)
    visitor.driver.get(opened(server, TOKEN))
    visitor.sees(".intake button", "Try a sample")
    assert visitor.findings() == []
    visitor.sees(".intake button", "Try a sample").click()
    visitor.sees(".job[data-state=done] .name", "sample.wav")
    visitor.sees("#main .title", "0:28")
    buttons = "return [...document.querySelectorAll('.intake button')].map((one) => one.innerText)"
    assert "Try a sample" not in visitor.js(buttons), "a list needs none"
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert server.client.get("/v1/page/sample", headers=bearer).content == SOUND
    assert server.client.get("/v1/page/sample").json()["code"] == "token_missing"


def test_demo_saves_the_sample_and_overwrites_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "talk.wav"
    for _ in range(2):  # a guide may be followed again
        assert cli.run(["demo", "--save", str(target)]) == 0
        assert capsys.readouterr().out == f"{target}\n"
        assert target.read_bytes() == SOUND
    target.write_bytes(b"mine")
    assert cli.run(["demo", "--save", str(target)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert cli.run(["demo", "--save", str(tmp_path / "none" / "talk.wav")]) == 1
    assert "cannot be written" in capsys.readouterr().err
