"""Checkpoints are found by the names and folders people give, and told whole from broken."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_hub import CONFIG, ORIGINAL_CONFIG, SHARDS, SPEAKING_CONFIG, write_checkpoint
from systems import NO_LINKS

from sidecar import errors
from sidecar.checkpoints import checkpoint
from sidecar.checkpoints.installed_checkpoints import STREAMING, find_checkpoint, installed_models
from sidecar.checkpoints.model_repositories import (
    STREAMING_REPOSITORIES,
    VIBEVOICE_REPOSITORY,
    vibevoice_repository,
)
from sidecar.cli.pull import list_models
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.interfaces.engine_interface import Precision

OLD, NEW = "1" * 40, "2" * 40
ADAPTED = tuple(
    f"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{half}.weight"
    for half in "AB"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def cached(
    root: Path, commit: str = NEW, repo: str = VIBEVOICE_REPOSITORY, main: bool = False
) -> Path:
    """A checkpoint in a cache, at a commit."""
    store = checkpoint.cache_folder(repo, root)
    if main:
        (store / "refs").mkdir(parents=True, exist_ok=True)
        (store / "refs" / "main").write_text(commit, "utf-8")
    return write_checkpoint(store / "snapshots" / commit)


@pytest.mark.parametrize(
    "name",
    [
        *("vibevoice", "VibeVoice", "vibevoice-asr", "VibeVoice-ASR-HF"),
        *("microsoft/vibevoice-asr-7b", "Microsoft/VIBEVOICE-ASR-7B"),
        " microsoft/VibeVoice-ASR-HF ",
    ],
)
def test_common_model_names_resolve_to_repository(name):
    assert vibevoice_repository(name) == "microsoft/VibeVoice-ASR-HF"


@pytest.mark.parametrize(
    "name", ["microsoft/VibeVoice-ASR", "someone/vibevoice-asr", "microsoft/phi-4", "A-1.b/c_D"]
)
def test_repository_name_that_is_no_alias_is_kept_as_given(name):
    assert vibevoice_repository(name) == name


@pytest.mark.parametrize(
    "name", ["", "whisper", "a/b/c", "../x", "a/..", "a/", "/b", "ä/b", "a b/c"]
)
def test_invalid_model_name_is_refused(name):
    with pytest.raises(errors.RepositoryNotFound, match="not the name"):
        vibevoice_repository(name)


@pytest.mark.parametrize(
    ("env", "root"),
    [
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HF_HUB_CACHE": ""}, "~/.cache/huggingface/hub"),
        ({"HF_HOME": "~/models"}, "~/models/hub"),
    ],
)
def test_cache_folder_follows_environment_variables_as_huggingface_hub_does(env, root):
    assert checkpoint.hugging_face_cache(env) == Path(root).expanduser()
    pytest.importorskip("huggingface_hub")
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("HF", "HUGG"))}
    outer.pop("XDG_CACHE_HOME", None)
    code = "import huggingface_hub.constants as all; print(all.HF_HUB_CACHE)"
    theirs = subprocess.run(
        [sys.executable, "-c", code],
        env={**outer, **{key: value for key, value in env.items() if value}},
        capture_output=True,
        text=True,
        check=True,
    )
    assert checkpoint.hugging_face_cache(env) == Path(theirs.stdout.strip())


def test_checkpoint_read_from_folder_has_its_config_weight_files_and_size(folder):
    found = checkpoint.read_checkpoint(folder)
    assert found.folder == folder
    assert found.config == CONFIG
    assert [file.name for file in found.weight_files] == list(SHARDS)
    assert found.bytes == sum((folder / name).stat().st_size for name in SHARDS) > 1 << 20
    assert found.revision is None


def test_weights_in_one_file_are_accepted(folder):
    (folder / SHARDS[1]).unlink()
    (folder / SHARDS[0]).rename(folder / "model.safetensors")
    assert [file.name for file in checkpoint.read_checkpoint(folder).weight_files] == [
        "model.safetensors"
    ]


@pytest.mark.parametrize(
    "way",
    [
        lambda root, folder: folder,
        lambda root, folder: folder.parent,
        lambda root, folder: folder.parent.parent,
        lambda root, folder: root,
        lambda root, folder: root.parent,
    ],
    ids=["snapshot", "snapshots", "repository", "cache", "HF_HOME"],
)
def test_every_folder_around_cached_checkpoint_resolves_to_it(way, tmp_path):
    root = tmp_path / "hub"
    folder = cached(root)
    found = find_checkpoint(way(root, folder))
    assert (found.folder, found.revision) == (folder, NEW)


def test_checkpoint_is_searched_in_the_hugging_face_cache_if_no_folder_is_given(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(errors.CheckpointNotFound) as caught:
        find_checkpoint(None)
    assert "vibevoice-asr pull vibevoice" in caught.value.hint
    folder = cached(tmp_path / "hub")
    assert find_checkpoint(None).folder == folder


def adapter(folder: Path, base: str, names: tuple[str, ...] = ADAPTED, **more: object) -> Path:
    folder.mkdir()
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": base, **more}
    (folder / "adapter_config.json").write_text(json.dumps(about), "utf-8")
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]}
        for at, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(4 * len(names))
    (folder / "adapter_model.safetensors").write_bytes(data)
    return folder


@pytest.mark.parametrize("base", ["../checkpoint", "ABSOLUTE", "microsoft/VibeVoice-ASR"])
def test_adapter_folder_gets_config_and_size_of_its_base_model(folder, tmp_path, monkeypatch, base):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    model = cached(tmp_path / "hub", repo=base) if base.startswith("microsoft") else folder
    lora = adapter(tmp_path / "lora", str(folder) if base == "ABSOLUTE" else base)
    found = find_checkpoint(lora)
    assert found.folder == lora
    assert found.config == checkpoint.read_checkpoint(model).config
    assert found.bytes == checkpoint.read_checkpoint(model).bytes


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"use_dora": True}, "it has use_dora"),
        ({"bias": "all", "modules_to_save": ["lm_head"]}, "it has modules_to_save, bias"),
        ({"peft_type": "IA3"}, "not a LoRA adapter"),
        ({"r": "many"}, "not a LoRA adapter"),
        ({"names": ("base_model.model.lm_head.lora_A.weight",)}, "lm_head.lora_A.weight' is no"),
    ],
)
def test_adapter_that_cannot_be_merged_is_refused_with_advice(folder, tmp_path, more, part):
    lora = adapter(tmp_path / "lora", "../checkpoint", **more)
    with pytest.raises(errors.CheckpointUnsupported, match=part) as caught:
        find_checkpoint(lora)
    assert "merge_and_unload" in caught.value.hint


def test_adapter_whose_base_model_is_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", repo="microsoft/VibeVoice-ASR-HF")
    lora = adapter(tmp_path / "lora", "microsoft/VibeVoice-ASR")
    with pytest.raises(
        errors.CheckpointNotFound, match="'microsoft/VibeVoice-ASR', is not here"
    ) as caught:
        find_checkpoint(lora)
    assert "vibevoice-asr pull microsoft/VibeVoice-ASR." in caught.value.hint


def test_repository_name_as_model_path_is_searched_in_the_hugging_face_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(errors.CheckpointNotFound, match="is not a folder"):
        find_checkpoint(Path("somebody/VibeVoice-ASR-de"))
    folder = cached(tmp_path / "hub", repo="somebody/VibeVoice-ASR-de")
    assert find_checkpoint(Path("somebody/VibeVoice-ASR-de")).folder == folder


@pytest.mark.parametrize(
    ("stored", "precision"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"load_in_8bit": True, "load_in_4bit": False}, "int8"),
    ],
)
def test_quantized_checkpoint_has_only_its_own_precision(folder, stored, precision):
    pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")
    with_config(quantization_config=stored)(folder)
    spec = choose_engine(Settings(engine="vibevoice", model_path=folder)).spec
    assert spec.precisions == (precision,)
    assert spec.replacement(Precision.BF16) == (
        f"bf16 runs as {precision} here: the checkpoint is quantized in {precision}"
    )


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_checkpoint_quantized_by_gptq_awq_or_fp8_is_refused(folder, method):
    with_config(quantization_config={"quant_method": method})(folder)
    with pytest.raises(errors.CheckpointUnsupported, match=f"quantized by '{method}'") as caught:
        find_checkpoint(folder)
    assert "int4" in caught.value.hint


SKIPPED = ["lm_head", "model.acoustic_tokenizer_encoder", "multi_modal_projector", "embed_tokens"]


@pytest.mark.parametrize(
    "plain", ["model.language_model.layers.27", "layers.0.mlp", "q_proj", "model.language_model"]
)
def test_checkpoint_with_unquantized_layers_in_its_language_model_is_refused(folder, plain):
    stored = {"load_in_4bit": True, "llm_int8_skip_modules": SKIPPED}
    with_config(quantization_config=stored)(folder)
    assert find_checkpoint(folder).config["quantization_config"] == stored
    with_config(quantization_config={**stored, "llm_int8_skip_modules": [*SKIPPED, plain]})(folder)
    with pytest.raises(errors.CheckpointUnsupported, match=f"except '{plain}'"):
        find_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "name", "hint"),
    [
        (
            {"architectures": ["VibeVoiceForASRStreamingTraining"]},
            "VibeVoice-ASR-Streaming, which another engine runs",
            "--engine vibevoice-streaming",
        ),
        (
            {"quantization_config": {"quant_method": "bitnet"}},
            "VibeVoice-ASR-BitNet, another model",
            "vibevoice-asr pull vibevoice",
        ),
    ],
)
def test_streaming_and_bitnet_models_are_refused_with_their_name_and_the_right_command(
    folder, change, name, hint
):
    rewrite("config.json", json.dumps({**ORIGINAL_CONFIG, **change}))(folder)
    with pytest.raises(errors.CheckpointUnsupported, match=f"is {name}") as refused:
        find_checkpoint(folder)
    assert hint in refused.value.hint


def test_checkpoint_without_tokenizer_is_refused_with_advice_to_save_the_processor(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(errors.CheckpointIncomplete, match="lacks tokenizer") as caught:
        find_checkpoint(folder)
    assert "save_pretrained of model and processor" in caught.value.hint


def test_checkpoint_of_a_relative_path_has_an_absolute_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert find_checkpoint(Path("checkpoint")).folder == folder


def test_main_revision_of_canonical_repository_is_preferred(tmp_path):
    cached(tmp_path, repo="aaa/VibeVoice-ASR-tuned", main=True)
    main = cached(tmp_path, OLD, main=True)
    cached(tmp_path, NEW)
    assert find_checkpoint(tmp_path).folder == main


def test_newest_revision_is_preferred_without_main(tmp_path):
    cached(tmp_path, OLD)
    new = cached(tmp_path, NEW)
    os.utime(new.parent / OLD, (1, 1))
    assert find_checkpoint(tmp_path).folder == new


def test_complete_checkpoint_is_preferred_to_incomplete_one(tmp_path):
    (cached(tmp_path, NEW, main=True) / SHARDS[0]).unlink()
    old = cached(tmp_path, OLD)
    assert find_checkpoint(tmp_path).folder == old


def test_if_no_revision_is_complete_the_error_is_that_of_the_main_one(tmp_path):
    (cached(tmp_path, NEW, main=True) / SHARDS[0]).unlink()
    (cached(tmp_path, OLD) / "config.json").write_text("{", "utf-8")
    with pytest.raises(errors.CheckpointIncomplete, match=SHARDS[0]) as caught:
        find_checkpoint(tmp_path)
    assert caught.value.hint.endswith(f"vibevoice-asr pull {VIBEVOICE_REPOSITORY}")


def test_tts_models_in_cache_are_ignored(tmp_path):
    speaks = cached(tmp_path, repo="microsoft/VibeVoice-1.5B")
    (speaks / "config.json").write_text(json.dumps(SPEAKING_CONFIG), "utf-8")
    with pytest.raises(errors.CheckpointNotFound):
        find_checkpoint(tmp_path)


def rewrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, "utf-8")


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def weights_become(*names: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        remove(*SHARDS, "model.safetensors.index.json")(folder)
        for name in names:
            (folder / name).write_bytes(b"\x80\x04N.")

    return change


def resize(by: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        shard = folder / SHARDS[1]
        os.truncate(shard, shard.stat().st_size + by)

    return change


def header(data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / SHARDS[0]).write_bytes(len(data).to_bytes(8, "little") + data)


def with_config(**more: object) -> Callable[[Path], object]:
    return rewrite("config.json", json.dumps({**CONFIG, **more}))


@pytest.mark.parametrize(
    ("change", "error", "part"),
    [
        (remove("config.json"), errors.CheckpointNotFound, "no config.json"),
        (rewrite("config.json", "{garbage"), errors.CheckpointDamaged, "not valid JSON"),
        (rewrite("config.json", "\udcff".encode("utf-8", "surrogatepass").decode("latin-1")),
         errors.CheckpointDamaged, "not valid JSON"),
        (rewrite("config.json", "[" * 100_000), errors.CheckpointDamaged, "not valid JSON"),
        (rewrite("config.json", "[]"), errors.CheckpointDamaged, "not a JSON object"),
        (rewrite("config.json", "{}"), errors.CheckpointUnsupported, "None"),
        (with_config(model_type="whisper"), errors.CheckpointUnsupported, "whisper"),
        (with_config(model_type=["vibevoice_asr"]), errors.CheckpointUnsupported, "model_type"),
        (with_config(auto_map={"AutoModel": "evil.M"}), errors.CheckpointUnsafe, "auto_map"),
        (rewrite("config.json", json.dumps({**ORIGINAL_CONFIG, "decoder_config": None})),
         errors.CheckpointDamaged, "lacks a part of VibeVoice-ASR"),
        (rewrite("config.json", json.dumps(SPEAKING_CONFIG)),
         errors.CheckpointUnsupported, "vibevoice"),
        (weights_become(), errors.CheckpointIncomplete, "no weights"),
        (weights_become("pytorch_model.bin"), errors.CheckpointUnsafe, "pickled"),
        (weights_become("model.pt"), errors.CheckpointUnsafe, "pickled"),
        (remove(SHARDS[0]), errors.CheckpointIncomplete, "1 of 2 files of weights"),
        (remove(*SHARDS), errors.CheckpointIncomplete, "and 1 more"),
        (rewrite("model.safetensors.index.json", "{}"), errors.CheckpointDamaged, "not an index"),
        (rewrite("model.safetensors.index.json", '{"weight_map": {"a": "../config.json"}}'),
         errors.CheckpointDamaged, "not an index"),
        (rewrite("model.safetensors.index.json", json.dumps({"weight_map": {"new": SHARDS[0]}})),
         errors.CheckpointDamaged, "lacks weights"),
        (resize(-1), errors.CheckpointDamaged, "truncated"),
        (resize(-500_000), errors.CheckpointDamaged, "truncated"),
        (resize(1), errors.CheckpointDamaged, "too long"),
        (rewrite(SHARDS[0], ""), errors.CheckpointDamaged, "truncated"),
        (rewrite(SHARDS[0], "\x01" * 4), errors.CheckpointDamaged, "truncated"),
        (rewrite(SHARDS[0], "version https://git-lfs"), errors.CheckpointDamaged, "not a safe"),
        (header(b"{garbage"), errors.CheckpointDamaged, "not valid JSON"),
        (header(b"[1, 2]"), errors.CheckpointDamaged, "not a JSON object"),
        (header(b'{"a": 1}'), errors.CheckpointDamaged, "damaged header"),
        (header(b'{"a": {"data_offsets": [0]}}'), errors.CheckpointDamaged, "damaged header"),
        (header(b'{"a": {"data_offsets": [0, 1e999]}}'), errors.CheckpointDamaged, "damaged"),
        (header(b"{}"), errors.CheckpointDamaged, "lacks weights"),
        (remove("tokenizer.json"), errors.CheckpointIncomplete, "lacks tokenizer.json"),
        (remove("processor_config.json"), errors.CheckpointIncomplete, "processor_config.json"),
        (remove("chat_template.jinja"), errors.CheckpointIncomplete, "chat_template.jinja"),
    ],
)  # fmt: skip
def test_invalid_checkpoint_is_refused_with_advice(change, error, part, folder):
    change(folder)
    with pytest.raises(errors.BadCheckpoint, match=part) as caught:
        checkpoint.read_checkpoint(folder)
    assert type(caught.value) is error
    assert str(folder) in caught.value.detail
    assert "vibevoice-asr pull vibevoice" in caught.value.hint


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_as_weight_file_raise_no_error_but_checkpoint_damaged(data, with_length):
    path = Path(tempfile.gettempdir()) / f"any-{os.getpid()}.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data if with_length else data)
    try:
        with contextlib.suppress(errors.CheckpointDamaged):
            assert checkpoint.check_safetensors(path) == frozenset()
    finally:
        path.unlink()


def test_missing_checkpoint_folder_is_an_error_that_names_its_path(tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(errors.CheckpointNotFound, match=re.escape(f"{gone} is not a folder")):
        find_checkpoint(gone)


@pytest.mark.posix("permissions of POSIX")
@pytest.mark.parametrize("above", [False, True])
def test_checkpoint_folder_without_read_permission_is_an_error(folder, above):
    closed = folder.parent if above else folder
    closed.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(errors.BadCheckpoint, match="cannot be read"):
            find_checkpoint(folder)
    finally:
        os.seteuid(user)
        closed.chmod(0o700)


@pytest.mark.not_in_wine(NO_LINKS)
def test_weight_file_that_links_to_a_missing_blob_is_reported_as_missing(folder):
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[0]).symlink_to("../../blobs/gone")
    with pytest.raises(errors.CheckpointIncomplete, match=SHARDS[0]):
        checkpoint.read_checkpoint(folder)


def test_search_of_checkpoint_imports_no_heavy_package(folder):
    code = (
        "import sys; from pathlib import Path; from sidecar.engines import engine_selection as "
        "choice\n"
        "from sidecar.checkpoints import installed_checkpoints as weights\n"
        f"weights.find_checkpoint(Path({str(folder)!r}))\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "huggingface_hub", "safetensors", "numpy", "httpx", "httpx2"}
    assert not heavy & set(run.stdout.split())


def test_models_list_suggests_pull_and_in_an_executable_only_of_models_that_it_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(tmp_path))
    asyncio.run(list_models())
    assert "'vibevoice-asr pull' gets others" in capsys.readouterr().err
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    lacking = {"tokenizers"}
    monkeypatch.setattr(
        "sidecar.installation.find_spec", lambda name: None if name in lacking else find_spec(name)
    )
    asyncio.run(list_models())
    assert "'vibevoice-asr pull voice'" in capsys.readouterr().err
    lacking.add("moonshine_voice")
    asyncio.run(list_models())
    assert "pull" not in capsys.readouterr().err


def test_name_of_a_checkpoint_is_repository_and_commit_or_folder_name_without_path() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = Path(f"/home/u/.cache/hub/models--microsoft--VibeVoice-ASR-HF/snapshots/{commit}")
    assert checkpoint.checkpoint_name(cached) == f"microsoft/VibeVoice-ASR-HF@{commit}"
    assert checkpoint.checkpoint_name(Path("/home/u/fine-tune")) == "fine-tune"


@pytest.mark.parametrize("name", sorted(STREAMING_REPOSITORIES))
def test_incomplete_streaming_model_in_the_cache_suggests_its_own_pull_command(name, tmp_path):
    folder = checkpoint.cache_folder(STREAMING_REPOSITORIES[name], tmp_path) / "snapshots/a"
    folder.mkdir(parents=True)
    config = {**ORIGINAL_CONFIG, "architectures": ["VibeVoiceForASRStreamingTraining"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(errors.CheckpointIncomplete) as caught:
        STREAMING.read(folder)
    assert caught.value.hint.endswith(f"vibevoice-asr pull {STREAMING_REPOSITORIES[name]}")


def test_cache_folders_that_are_no_repositories_are_not_listed_as_models(tmp_path: Path) -> None:
    cached(tmp_path, main=True)
    for odd in ("models--vibevoice-asr-ft", "models--microsoft--VibeVoice-ASR-HF copy"):
        (tmp_path / odd).mkdir()
    assert [(one.name, one.commit) for one in installed_models(tmp_path)] == [("vibevoice", NEW)]


def test_installed_models_are_listed_while_files_of_another_model_come_and_go(
    tmp_path: Path,
) -> None:
    cached(tmp_path, main=True)
    other, over = tmp_path / "models--x--vibevoice-asr", threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for number in range(20):
                blobs = other / "blobs" / str(number)
                blobs.mkdir(parents=True, exist_ok=True)
                (blobs / "part").write_bytes(b"1")
            shutil.rmtree(other / "blobs", ignore_errors=True)  # Windows: while they are read

    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        listed = [{one.name for one in installed_models(tmp_path)} for _ in range(100)]
    finally:
        over.set()
        busy.join()
    assert all("vibevoice" in names for names in listed)
