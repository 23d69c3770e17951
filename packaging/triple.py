"""The target triple of this machine, by which hosts name the programs that they bring along."""

import platform

SYSTEMS = {
    "Linux": "unknown-linux-gnu",
    "Windows": "pc-windows-msvc",
    "Darwin": "apple-darwin",
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Where Python has another name than Rust."""


def target_triple(system: str = "", machine: str = "") -> str:
    """Return the triple, such as `x86_64-unknown-linux-gnu`, as `rustc -vV` prints it as host.

    Raises:
        KeyError: the system has none here.
    """
    kind = (machine or platform.machine()).lower()
    return f"{MACHINES.get(kind, kind)}-{SYSTEMS[system or platform.system()]}"
