"""Memory of this machine, or of the container in which this process runs (cgroup v1 and v2)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


class HostMemory(NamedTuple):
    """Memory that this process may use. ``limited``: a cgroup, such as a container's, allows less
    than the machine has."""

    total_bytes: int
    free_bytes: int
    limited: bool = False


class _CgroupFiles(NamedTuple):
    """Names of a version's files, and of the count of kernel kills in the last one."""

    folder: str
    limit: str
    used: str
    cache: str
    kills: str


_V2 = _CgroupFiles("", "memory.max", "memory.current", "inactive_file", "memory.events")
_V1 = _CgroupFiles(
    *("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    *("total_inactive_file", "memory.oom_control"),
)


def read_host_memory(root: Path = ROOT) -> HostMemory:
    """Return the memory of this machine, or what a cgroup allows if that is less. ``root``: of the
    file system with `/proc` and `/sys`.

    Raises:
        OSError: there is no descriptor to read it.
    """
    import psutil

    host = psutil.virtual_memory()
    memory = HostMemory(int(host.total), int(host.available))
    for names, folder in _cgroups(root):
        limit, used = _read(folder / names.limit), _read(folder / names.used)
        if not (limit.isdigit() and used.isdigit()) or int(limit) >= host.total:
            continue  # "max", or the huge number by which v1 says so
        # Files that were read lately count as used, but the kernel drops them first.
        cache = _counts(folder / "memory.stat").get(names.cache, 0)
        free = max(0, int(limit) - int(used) + cache)
        memory = HostMemory(
            min(memory.total_bytes, int(limit)), min(memory.free_bytes, free), limited=True
        )
    return memory


def memory_kills(root: Path = ROOT) -> int:
    """Return how many processes of this process's cgroup the kernel has killed for lack of memory,
    as far as it counts. ``root``: as of `read_host_memory`."""
    counted = (_counts(folder / names.kills).get("oom_kill") for names, folder in _cgroups(root))
    return next((kills for kills in counted if kills is not None), 0)


def _cgroups(root: Path) -> Iterator[tuple[_CgroupFiles, Path]]:
    """Yield the folders of this process's cgroup and of those around it. A container may see its
    own as the root of the file system, whatever its path outside."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _V1 if controllers else _V2
        mount = root / "sys/fs/cgroup" / names.folder
        inside = Path("" if ".." in path else path.lstrip("/"))
        for part in (inside, *inside.parents):
            if (mount / part).is_dir():
                yield names, mount / part


def _counts(path: Path) -> Mapping[str, int]:
    """Return the values of a file whose lines are a name and a number."""
    pairs = (line.partition(" ") for line in _read(path).splitlines())
    return {name: int(number) for name, _, number in pairs if number.isdigit()}


def _read(path: Path) -> str:
    """Return a file's text; empty if it is missing or cannot be read."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
