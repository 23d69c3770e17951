"""The examples of docs/clients.md run, against a real service."""

import re
from pathlib import Path

import moonshine_voice
import pytest
from scripted_speech import pieces, talk
from service_process import Server

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
TALK = Path(moonshine_voice.get_assets_path()) / "success.wav"


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_python_example_of_the_clients_page_runs_and_prints(
    number: int, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"url": server.url, "recording": TALK, "microphone": pieces(talk(0.3))}
    exec(compile(EXAMPLES[number], f"docs/clients.md, example {number + 1}", "exec"), names)
    assert capsys.readouterr().out.strip()
