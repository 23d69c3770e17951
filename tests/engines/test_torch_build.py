"""What is said of a torch that cannot use the GPU that the driver sees."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sidecar import errors
from sidecar.engines import torch_build
from sidecar.engines.torch_build import torch_has_cuda, torch_obstacle
from sidecar.gpu_memory import gpu_devices, torch_devices
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.service.system_checks import CheckState, check_gpu


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, driver: int | None
) -> None:
    """A torch for this CUDA beside a driver for that one."""
    library = "torch_cuda.dll" if cuda else "torch_cpu.dll"
    (folder / "lib").mkdir()
    (folder / "lib" / library).touch()
    (folder / "version.py").write_text(
        f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda!r}\n", "utf-8"
    )
    found = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(torch_devices, "find_spec", lambda name: found)
    monkeypatch.setattr(torch_build.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(torch_build, "driver_cuda_version", lambda: driver)


@pytest.mark.parametrize(
    ("cuda", "driver", "reason"),
    [
        (None, 13000, "torch 2.13.0 is a build for CPUs and cannot use the RTX 3060"),
        (
            "13.0",
            12040,
            "torch 2.13.0 needs a driver for CUDA 13, and that of the RTX 3060 is for 12.4",
        ),
        ("12.8", 12040, None),
        ("12.8", 13000, None),
        ("13.0", None, None),
    ],
)
def test_doctor_warns_of_torch_that_cannot_use_the_gpu_with_reason_and_install_command(
    cuda: str | None,
    driver: int | None,
    reason: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(tmp_path, monkeypatch, cuda, driver)
    gpu = GpuMemory("RTX 3060", 1024, 12288)
    monkeypatch.setattr(gpu_devices, "read_gpu_memory", lambda: gpu)
    found, obstacle = check_gpu(), torch_obstacle("RTX 3060")
    assert found.text.startswith("RTX 3060, 11264 of 12288 MiB VRAM free")
    if reason is None:
        assert (found.state, obstacle) == (CheckState.GOOD, None)
        return
    assert found.state is CheckState.WARNING
    assert found.text.endswith(f"; {reason}")
    assert "pip install --force-reinstall torch --index-url URL" in found.remedy
    assert "--device cpu" in found.remedy
    assert obstacle == (reason, found.remedy)


def test_cuda_support_read_from_torch_files_equals_that_of_the_imported_torch() -> None:
    torch = pytest.importorskip("torch")
    assert torch_has_cuda() is bool(torch.version.cuda or torch.version.hip)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_device_choice_fails_with_reason_if_torch_cannot_use_the_gpu_unless_cpu_is_requested(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from sidecar.engines.vibevoice import vibevoice_model

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = GpuMemory("RTX 3060", 1024, 12288)
    monkeypatch.setattr(vibevoice_model, "read_gpu_memory", lambda: gpu)
    install(tmp_path, monkeypatch, None, 13000)
    with pytest.raises(errors.ModelLoadFailed, match="build for CPUs") as wrong:
        vibevoice_model.pick_device(wanted)
    assert "--index-url URL" in wrong.value.hint
    assert vibevoice_model.pick_device("cpu").type == "cpu"
    monkeypatch.setattr(vibevoice_model, "read_gpu_memory", lambda: None)
    if wanted == "auto":
        assert vibevoice_model.pick_device(wanted).type == "cpu"
    else:
        with pytest.raises(errors.ModelLoadFailed, match="cannot use the GPU"):
            vibevoice_model.pick_device(wanted)
