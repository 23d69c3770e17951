"""A GPU that NVML does not know, by torch: a stand-in of torch for ROCm with what it says of its
device, in this process and in the child that a process without torch asks."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from many_cases import parametrize_by_name

from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import gather_facts, spec_on_device
from sidecar.engines.torch_build import torch_has_cuda, torch_obstacle
from sidecar.gpu_memory import torch_devices
from sidecar.gpu_memory.gpu_devices import GpuMemory, GpuMonitor, read_gpu_memory
from sidecar.interfaces.engine_interface import Precision
from sidecar.service.system_checks import CheckState, check_gpu
from sidecar.workers.engine_memory import MemoryDevices

GIB = 1 << 30
CARD = GpuMemory("AMD Radeon PRO W7900", 2 << 10, 48 << 10, by_torch=True)
TORCH = """
import os
from pathlib import Path
from types import SimpleNamespace
free = Path(os.environ["HIP_FREE_BYTES"])
cuda = SimpleNamespace(
    is_available=free.exists,
    mem_get_info=lambda device: (int(free.read_text()), 48 << 30),
    get_device_name=lambda device: "AMD Radeon PRO W7900",
    is_bf16_supported=lambda: True,
)
"""
SetFree = Callable[[int | None], None]


class NvmlError(Exception):
    pass


def no_driver() -> None:
    raise NvmlError("the library is not found")


@pytest.fixture
def rocm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetFree]:
    """Installs the stand-in, and says how many GiB of its card are free; None: it has no card."""
    nvml = SimpleNamespace(NVMLError=NvmlError, nvmlInit=no_driver, nvmlShutdown=no_driver)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    package, free = tmp_path / "packages" / "torch", tmp_path / "free"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "libtorch_hip.so").touch()
    (package / "__init__.py").write_text(TORCH, "utf-8")
    (package / "version.py").write_text("__version__ = '2.9.0+rocm6.4'\ncuda = None\n", "utf-8")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("HIP_FREE_BYTES", str(free))
    monkeypatch.setitem(sys.modules, "torch", None)  # so that its stand-in goes at the end
    del sys.modules["torch"]
    monkeypatch.setattr("sidecar.engines.torch_build.metadata.version", lambda name: "2.9.0")
    torch_devices.CHILD.close()
    torch_devices.torch_is_for_rocm.cache_clear()

    def put(gib: int | None) -> None:
        free.unlink(missing_ok=True)
        if gib is not None:
            free.write_text(str(gib * GIB), "ascii")

    put(46)
    yield put
    torch_devices.CHILD.close()
    torch_devices.torch_is_for_rocm.cache_clear()


def imported() -> None:
    import torch  # noqa: F401


@parametrize_by_name("where", {"in_this_process": imported, "in_the_child": lambda: None})
def test_card_that_only_torch_knows_has_name_memory_and_type_and_its_free_memory_is_that_of_now(
    where: Callable[[], None], rocm: SetFree
) -> None:
    where()
    assert read_gpu_memory() == CARD
    rocm(10)
    now = read_gpu_memory()
    assert now is not None
    assert now.free_bytes == 10 * GIB
    rocm(None)
    assert read_gpu_memory() is None


def test_child_that_ended_is_started_again_for_the_next_query(rocm: SetFree) -> None:
    assert read_gpu_memory() == CARD
    process = torch_devices.CHILD.process
    assert process is not None
    process.kill()
    process.wait()
    assert read_gpu_memory() == CARD


def test_child_that_does_not_answer_is_ended_and_there_is_no_gpu(
    rocm: SetFree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "packages" / "torch" / "__init__.py"
    slow.write_text("import threading\nthreading.Event().wait()\n", "utf-8")
    assert torch_devices.CHILD.ask(limit_s=0.5) is None
    slow.write_text(TORCH, "utf-8")
    assert read_gpu_memory() == CARD


def test_child_that_no_longer_answers_but_lives_is_replaced(rocm: SetFree, tmp_path: Path) -> None:
    mute = tmp_path / "packages" / "torch" / "__init__.py"
    mute.write_text("import os, threading\nos.close(1)\nthreading.Event().wait()\n", "utf-8")
    assert torch_devices.CHILD.ask() is None
    mute.write_text(TORCH, "utf-8")
    assert read_gpu_memory() == CARD


def test_child_gets_no_secrets_and_ends_with_the_pipe(
    rocm: SetFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_TOKEN", "a secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    child = torch_devices.TorchChild()
    assert child.ask() is not None
    process = child.process
    assert process is not None
    assert process.stdin is not None
    if os.path.exists("/proc/self/environ"):
        assert b"a secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    process.stdin.close()
    assert process.wait(60) == 0


def test_doctor_names_a_card_that_only_torch_knows_and_the_engine_runs_on_it(
    rocm: SetFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = check_gpu()
    assert finding.state is CheckState.GOOD
    assert finding.text == "AMD Radeon PRO W7900, 47104 of 49152 MiB VRAM free"
    assert torch_has_cuda()
    assert torch_obstacle(CARD.name) is None
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    facts = gather_facts(Settings())
    assert (facts.gpu, facts.cuda) == (CARD.name, True)
    rocm(None)
    assert check_gpu().state is CheckState.ABSENT
    assert "torch for ROCm" in check_gpu().text


def test_monitor_of_a_card_that_only_torch_knows_has_its_free_memory_and_precisions(
    rocm: SetFree,
) -> None:
    devices = MemoryDevices(GpuMonitor())
    devices.gpu.begin()
    assert devices.gpu.seen == CARD
    assert devices.gpu.free_bytes("files") == 46 * GIB
    streaming = spec_on_device(engine_spec("vibevoice-streaming"), devices.gpu.seen)
    assert streaming.resolve_precision(Precision.FP16) is Precision.BF16
    whisper = spec_on_device(engine_spec("whisper"), devices.gpu.seen)
    assert whisper.resolve_precision(Precision.FP16) is Precision.FP32, "it runs on the CPU"


def test_installed_torch_is_looked_at_once_however_often_the_gpu_is_read(
    rocm: SetFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, find = [], torch_devices.torch_folders
    monkeypatch.setattr(torch_devices, "torch_folders", lambda: looks.append("once") or find())
    rocm(None)
    assert [read_gpu_memory() for _ in range(3)] == [None] * 3
    assert looks == ["once"]


def test_process_without_torch_for_rocm_starts_no_child(rocm: SetFree, tmp_path: Path) -> None:
    (tmp_path / "packages" / "torch" / "lib" / "libtorch_hip.so").unlink()
    assert read_gpu_memory() is None
    assert torch_devices.CHILD.process is None
