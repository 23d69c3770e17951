"""Run a command under the restrictions of a systemd unit, without systemd: seccomp and mounts.

    unshare --user --map-root-user --mount python systemd_sandbox.py UNIT STATE_FOLDER COMMAND …

It needs libseccomp, systemd-analyze (which knows the groups of system calls) and user namespaces.
What is left out: limits of cgroups, and what hides other processes.
"""

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

ALLOW, REFUSE = 0x7FFF0000, 0x00050000
EQUAL, MASKED = 4, 7
"""Comparisons of libseccomp."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
HOMES = ("/home", "/root")
NEW_NAMESPACES = 0x7E020000
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
MOST_FAMILIES = 46
READ_ONLY, REMOUNT, BIND, RECURSIVE, NO_SUID, NO_DEV = 1, 32, 4096, 16384, 2, 4
KEPT = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "relatime": 1 << 21}
"""Flags of mounts that a user namespace may not take away."""
VFS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "relatime": 4096}
"""The same as `os.statvfs` has them."""
CAPABILITIES = 41
DROP_FROM_BOUNDING_SET = 24
libc = ctypes.CDLL(None, use_errno=True)


class Unit:
    """Directives of a unit's file."""

    def __init__(self, path: Path) -> None:
        self._lines = re.findall(r"(?m)^(\w+)=(.*)$", path.read_text("utf-8"))

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._lines if key == name]

    def on(self, name: str) -> bool:
        return self.all(name)[-1:] in (["yes"], ["strict"], ["invisible"])


def checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def mount(source: str, target: str, flags: int, kind: str | None = None) -> None:
    names = [os.fsencode(one) if one else None for one in (source, target, kind)]
    checked(libc.mount(*names, flags, None), f"mount {source} {target}")


def restrict_files(unit: Unit, state: Path) -> None:
    """Leave what the unit leaves: its folders to write into, few devices, no homes."""
    if not unit.on("ProtectSystem"):
        return
    mount("none", "/", RECURSIVE | 1 << 18)  # private
    kept, options = os.open(state, os.O_PATH), os.statvfs(state).f_flag
    flags_of_state = sum(flag for name, flag in KEPT.items() if options & VFS[name])
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, target, _, options, *_ = line.split()
        flags = sum(KEPT.get(one, 0) for one in options.split(","))
        libc.mount(None, os.fsencode(target), None, REMOUNT | BIND | READ_ONLY | flags, None)
    used = [*map(Path, (sys.executable, sys.prefix, sys.base_prefix)), Path.cwd()]
    for folder in ("/tmp", "/var/tmp") if unit.on("PrivateTmp") else ():
        if not any(one.is_relative_to(folder) for one in used):
            mount("tmpfs", folder, NO_SUID | NO_DEV, "tmpfs")
    if unit.on("PrivateDevices"):
        mount("tmpfs", "/dev", NO_SUID, "tmpfs")
        for name, opened in devices.items():
            Path(f"/dev/{name}").touch()
            mount(f"/proc/self/fd/{opened}", f"/dev/{name}", BIND)
        os.symlink("/proc/self/fd", "/dev/fd")
        Path("/dev/shm").mkdir()
        mount("tmpfs", "/dev/shm", NO_SUID | NO_DEV, "tmpfs")
    for home in HOMES if unit.on("ProtectHome") else ():
        if Path(home).is_dir() and not any(one.is_relative_to(home) for one in [*used, state]):
            mount("tmpfs", home, READ_ONLY, "tmpfs")
    state.mkdir(parents=True, exist_ok=True)
    mount(f"/proc/self/fd/{kept}", str(state), BIND)
    mount("", str(state), REMOUNT | BIND | flags_of_state)


class Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """Filter of system calls: what it does with those that no rule names, and its rules."""

    def __init__(self, otherwise: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._lib.seccomp_init(otherwise))

    def rule(self, action: int, name: str, *where: tuple[int, int, int, int]) -> None:
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        comparisons = (Comparison * len(where))(*where)
        if number != -1:
            self._lib.seccomp_rule_add_array(self._context, action, number, len(where), comparisons)

    def load(self) -> None:
        checked(self._lib.seccomp_load(self._context), "seccomp_load")


def calls_of(group: str) -> set[str]:
    """The system calls of a group such as @system-service."""
    words = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    names = [line.strip() for line in told.splitlines()[1:] if not line.strip().startswith("#")]
    return {
        call for name in names if name for call in (calls_of(name) if name[0] == "@" else [name])
    }


def restrict_calls(unit: Unit) -> None:
    refuse, absent = REFUSE | errno.EPERM, REFUSE | errno.ENOSYS
    allowed = set[str]()
    for group in unit.all("SystemCallFilter"):
        allowed = allowed - calls_of(group[1:]) if group[0] == "~" else allowed | calls_of(group)
    filters = [Filter(refuse), Filter(ALLOW)]
    for name in allowed | {"execve", "exit", "exit_group", "rt_sigreturn"}:
        filters[0].rule(ALLOW, name)
    denied = filters[1]
    families = {FAMILIES[one] for one in " ".join(unit.all("RestrictAddressFamilies")).split()}
    for family in set(range(MOST_FAMILIES)) - families if families else ():
        denied.rule(REFUSE | errno.EAFNOSUPPORT, "socket", (0, EQUAL, family, 0))
    if unit.on("MemoryDenyWriteExecute"):
        denied.rule(refuse, "mmap", (2, MASKED, 6, 6))
        for name in ("mprotect", "pkey_mprotect"):
            denied.rule(refuse, name, (2, MASKED, 4, 4))
        denied.rule(refuse, "shmat", (2, MASKED, 0o100000, 0o100000))
    if unit.on("RestrictNamespaces"):
        for bit in (1 << at for at in range(32) if NEW_NAMESPACES >> at & 1):
            denied.rule(refuse, "clone", (0, MASKED, bit, bit))
        denied.rule(absent, "clone3")
        for name in ("unshare", "setns"):
            denied.rule(refuse, name)
    if unit.on("RestrictRealtime"):
        for policy in (1, 2, 6):
            denied.rule(refuse, "sched_setscheduler", (1, EQUAL, policy, 0))
    if unit.on("RestrictSUIDSGID"):
        for bit in (0o4000, 0o2000):
            for name, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1)):
                denied.rule(refuse, name, (place, MASKED, bit, bit))
    if unit.on("LockPersonality"):
        denied.rule(refuse, "personality")
    for one in reversed(filters):
        one.load()


def main() -> None:
    unit, state = Unit(Path(sys.argv[1])), Path(sys.argv[2])
    restrict_files(unit, state)
    if unit.all("CapabilityBoundingSet") == [""]:
        for capability in range(CAPABILITIES):
            libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    os.umask(int(unit.all("UMask")[0], 8))
    restrict_calls(unit)
    os.execvp(sys.argv[3], sys.argv[3:])


if __name__ == "__main__":
    main()
