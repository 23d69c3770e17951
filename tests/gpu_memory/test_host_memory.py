"""Memory of a container, as the files of cgroups say it."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from service_process import new_file

from sidecar.gpu_memory.host_memory import HostMemory, memory_kills, read_host_memory

MB, GB = 1 << 20, 1 << 30
UNLIMITED_V1 = (1 << 63) - 4096


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 GB, of which 40 are free."""
    memory = SimpleNamespace(total=64 * GB, available=40 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def v2(folder: Path, limit: object, used: int, cache: int = 0, kills: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    new_file(folder / "memory.max", f"{limit}\n")
    new_file(folder / "memory.current", f"{used}\n")
    new_file(folder / "memory.stat", f"anon {used}\ninactive_file {cache}\n")
    new_file(folder / "memory.events", f"low 0\noom 3\noom_kill {kills}\noom_group_kill 0\n")


def v1(folder: Path, limit: int, used: int, cache: int = 0, kills: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    new_file(folder / "memory.limit_in_bytes", f"{limit}\n")
    new_file(folder / "memory.usage_in_bytes", f"{used}\n")
    new_file(folder / "memory.stat", f"inactive_file 1\ntotal_inactive_file {cache}\n")
    new_file(folder / "memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")


def within(root: Path, *lines: str) -> Path:
    """The root of a file system whose process is in these cgroups; the folder of their mounts."""
    (root / "proc/self").mkdir(parents=True)
    new_file(root / "proc/self/cgroup", "".join(f"{line}\n" for line in lines))
    return root / "sys/fs/cgroup"


def test_machine_without_cgroups_has_its_own_memory_and_no_kills(tmp_path: Path) -> None:
    assert read_host_memory(tmp_path) == HostMemory(64 * GB, 40 * GB)
    assert memory_kills(tmp_path) == 0


def test_container_of_v2_has_its_limit_and_what_is_free_of_it_with_the_cache(
    tmp_path: Path,
) -> None:
    v2(within(tmp_path, "0::/"), 2 * GB, 1500 * MB, cache=500 * MB, kills=2)
    assert read_host_memory(tmp_path) == HostMemory(2 * GB, 1048 * MB, limited=True)
    assert memory_kills(tmp_path) == 2


def test_limit_of_a_cgroup_around_it_counts_if_it_is_the_least(tmp_path: Path) -> None:
    mount = within(tmp_path, "0::/system.slice/asr.service")
    v2(mount / "system.slice/asr.service", "max", 100 * MB, kills=1)
    v2(mount / "system.slice", 3 * GB, 3 * GB + MB, kills=7)
    assert read_host_memory(tmp_path) == HostMemory(3 * GB, 0, limited=True)
    assert memory_kills(tmp_path) == 1


@pytest.mark.parametrize("path", ["/docker/0123", "/"], ids=["path-of-the-host", "own-root"])
def test_container_of_v1_has_its_limit_whatever_path_it_is_told(tmp_path: Path, path: str) -> None:
    mount = within(tmp_path, "5:cpu,cpuacct:/x", f"4:memory:{path}", "0::/")
    v1(mount / "memory", 450 * MB, 200 * MB, cache=50 * MB, kills=3)
    assert read_host_memory(tmp_path) == HostMemory(450 * MB, 300 * MB, limited=True)
    assert memory_kills(tmp_path) == 3


def test_cgroup_without_a_limit_leaves_the_memory_of_the_machine(tmp_path: Path) -> None:
    v1(within(tmp_path, "4:memory:/a") / "memory/a", UNLIMITED_V1, 20 * GB)
    assert read_host_memory(tmp_path) == HostMemory(64 * GB, 40 * GB)


def test_files_of_a_cgroup_that_cannot_be_understood_are_ignored(tmp_path: Path) -> None:
    mount = within(tmp_path, "0::/../..", "not a line")
    mount.mkdir(parents=True)
    new_file(mount / "memory.max", b"\xff")
    new_file(mount / "memory.events", "oom_kill many\n")
    assert read_host_memory(tmp_path) == HostMemory(64 * GB, 40 * GB)
    assert memory_kills(tmp_path) == 0
