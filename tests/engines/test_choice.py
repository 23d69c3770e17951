"""Which engine serves is decided by what is there, and the reason is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar import errors
from sidecar.checkpoints.checkpoint import Checkpoint
from sidecar.engines.choice import Facts, choose, decide, torch_has_cuda
from sidecar.settings import Settings

ALL = {"vibevoice": [], "moonshine": [], "upstream": [], "scripted": []}
FOUND = Checkpoint(Path("checkpoint"), {}, (), 0, None)
READY = {"lacking": ALL, "gpu": "H200", "cuda": True, "checkpoint": FOUND}


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "vibevoice", "H200"),
        ({"lacking": {**ALL, "vibevoice": ["torch"]}}, "moonshine", "torch"),
        ({"lacking": {"moonshine": []}}, "moonshine", "pip install"),
        ({"gpu": None}, "moonshine", "no NVIDIA GPU"),
        ({"cuda": False}, "moonshine", "cannot use the GPU"),
        ({"checkpoint": errors.CheckpointNotFound()}, "moonshine", "vibevoice-asr pull vibevoice"),
        ({"checkpoint": errors.CheckpointDamaged("bad.")}, "moonshine", "bad."),
    ],
)
def test_auto_takes_vibevoice_where_everything_is_there_and_says_what_is_not(changes, name, reason):
    chosen, why = decide("auto", Facts(**{**READY, **changes}))
    assert chosen == name
    assert reason in why


@pytest.mark.parametrize(
    ("wanted", "changes", "reason"),
    [
        ("vibevoice", {}, "as set"),
        ("vibevoice", {"gpu": None}, "slow"),
        ("vibevoice", {"cuda": False}, "slow"),
        ("moonshine", {}, "as set"),
        ("scripted", {"checkpoint": errors.CheckpointNotFound()}, "as set"),
    ],
)
def test_an_engine_that_is_named_is_taken_gpu_or_not(wanted, changes, reason):
    chosen, why = decide(wanted, Facts(**{**READY, **changes}))
    assert (chosen, reason in why) == (wanted, True)


def test_vibevoice_by_name_without_a_checkpoint_is_that_error():
    wrong = errors.CheckpointIncomplete("half of it.")
    with pytest.raises(errors.CheckpointIncomplete, match="half of it"):
        decide("vibevoice", Facts(**{**READY, "checkpoint": wrong}))


@pytest.mark.parametrize("changes", [{}, {"gpu": None}, {"lacking": {"moonshine": []}}], ids=str)
@pytest.mark.parametrize("wrong", errors.BadCheckpoint.__subclasses__())
def test_a_folder_that_was_named_and_cannot_be_used_is_that_error_for_auto_too(wrong, changes):
    facts = {**READY, **changes, "checkpoint": wrong(), "named": True}
    with pytest.raises(wrong):
        decide("auto", Facts(**facts))
    assert decide("moonshine", Facts(**facts)) == ("moonshine", "as set")


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("what", ["is no folder", "has no config.json"])
def test_auto_looks_into_the_folder_that_was_named_whatever_is_installed(
    what, installed, tmp_path, monkeypatch
):
    lacking = [] if installed else ["torch"]
    monkeypatch.setattr(
        "sidecar.engines.missing", lambda spec: lacking if spec.name == "vibevoice" else []
    )
    folder = tmp_path if what == "has no config.json" else tmp_path / "nothing"
    with pytest.raises(errors.CheckpointNotFound, match=what) as caught:
        choose(Settings(engine="auto", model_path=folder))
    assert "VIBEVOICE_MODEL_PATH" in caught.value.hint
    assert choose(Settings(engine="moonshine", model_path=folder)).spec.name == "moonshine"


@pytest.mark.parametrize(
    ("wanted", "lacking", "parts"),
    [
        ("vibevoice", {"vibevoice": ["torch", "accelerate"]}, ["torch, accelerate", "[vibevoice]"]),
        ("auto", {"vibevoice": ["torch"], "moonshine": ["moonshine_voice"]}, ["moonshine_voice"]),
        ("moonshine", {"moonshine": ["soxr"]}, ["soxr", "pip install vibevoice-asr"]),
    ],
)
def test_packages_that_are_missing_are_named_with_the_command(wanted, lacking, parts):
    with pytest.raises(errors.EngineUnavailable) as caught:
        decide(wanted, Facts(lacking))
    for part in parts:
        assert part in f"{caught.value.detail} {caught.value.hint}"


def test_made_up_text_is_never_what_auto_falls_back_to():
    with pytest.raises(errors.EngineUnavailable):
        decide("auto", Facts({**ALL, "vibevoice": ["torch"], "moonshine": ["moonshine_voice"]}))


@pytest.mark.parametrize("lacking", [[], ["torch"]])
@pytest.mark.parametrize("embedded", [[], ["moonshine_voice"]])
def test_nothing_leaves_the_machine_unless_upstream_is_said_by_name(lacking, embedded):
    facts = Facts(**{**READY, "lacking": {**ALL, "vibevoice": lacking, "moonshine": embedded}})
    try:
        assert decide("auto", facts)[0] != "upstream"
    except errors.EngineUnavailable:
        assert lacking
        assert embedded
    assert choose(Settings(engine="scripted", upstream=("http://box:1",))).upstream is None
    chosen = choose(Settings(engine="upstream", upstream=("http://box:1", "https://far/v1/")))
    assert chosen.reason == "as set; recordings go to box:1, far:443"
    assert chosen.upstream is not None
    assert chosen.upstream.urls == ("http://box:1", "https://far")


def test_the_engine_that_is_chosen_is_one_that_can_be_made():
    assert choose(Settings(engine="scripted")).spec.name == "scripted"
    choice = choose(Settings(engine="moonshine"))
    assert (choice.spec.name, choice.checkpoint) == ("moonshine", None)


def test_whether_torch_can_use_a_gpu_is_told_without_importing_it():
    torch = pytest.importorskip("torch")
    assert torch_has_cuda() is (torch.version.cuda is not None)
