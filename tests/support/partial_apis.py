"""What the standard library has on some systems or in some builds only, used without a guard.

`make types` checks for three systems by the conditions of typeshed. It does not know builds: for
Linux alone there are Pythons that were built against an older C library than the one they run on.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import TypeGuard

EVERYWHERE = {
    "os": {
        *("PathLike", "_exit", "access", "chmod", "close", "cpu_count", "devnull", "dup", "dup2"),
        *("environ", "execvp", "fdopen", "fstat", "fsync", "getpid", "getppid", "isatty", "kill"),
        *("link", "listdir", "lseek", "lstat", "name", "open", "path", "pathsep", "pipe", "read"),
        *("readlink", "replace", "scandir", "stat", "stat_result", "strerror", "urandom", "walk"),
        *("write", "O_CREAT", "O_EXCL", "O_RDONLY", "O_RDWR", "O_WRONLY", "SEEK_CUR", "SEEK_END"),
        *("SEEK_SET", "W_OK", "X_OK", "remove"),
    },
    "socket": {
        *(
            "AF_INET",
            "AF_INET6",
            "IPPROTO_TCP",
            "TCP_NODELAY",
            "SHUT_RDWR",
            "SOCK_STREAM",
            "SOL_SOCKET",
        ),
        *("SO_ACCEPTCONN", "SO_REUSEADDR", "create_connection", "gaierror", "gethostname"),
        *("socket", "socketpair", "MSG_CTRUNC"),
    },
    "signal": {"SIGINT", "SIGTERM", "SIG_DFL", "SIG_IGN", "getsignal", "signal"},
    "select": {"select"},
    "time": {
        *("gmtime", "monotonic", "monotonic_ns", "process_time", "sleep", "strftime"),
        *("thread_time", "time"),
    },
}
"""Names of these modules that the product may use as they are. A new name that each of Linux, macOS
and Windows has belongs here; a test compares with typeshed where mypy is installed."""
SOME_SYSTEMS = {
    *("fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "tty", "pty", "winreg", "winsound"),
}
"""Modules that one of the three systems lacks."""
SOME_BUILDS = re.compile(
    r"os[.](copy_file_range|getrandom|memfd_create|pidfd_open|P_PIDFD|(GRND|MFD|RWF)_\w+)"
    r"|signal[.]pidfd_send_signal|select[.]EPOLLEXCLUSIVE|time[.]CLOCK_TAI"
    r"|socket[.](AF_VSOCK|IPPROTO_MPTCP|SO_INCOMING_CPU|TCP_NOTSENT_LOWAT|IP_BIND_ADDRESS_NO_PORT)"
    r"|fcntl[.]F_(ADD_SEALS|GET_SEALS|SEAL_\w+|OFD_\w+)"
).fullmatch
"""What CPython has only if the C library of the build has it: `dir` of the standalone 3.11.11 and
3.14.6, which were built with glibc 2.17, compared with that of a distribution."""
_LEAVES = ast.Return, ast.Raise, ast.Continue, ast.Break


def unguarded(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each that is used without a guard.

    A guard is `hasattr` of the name, in a condition around or before it; for what all builds for a
    system have, a condition on `sys.platform` or `os.name`, too.
    """
    tree = ast.parse(source)
    imported = {
        one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names
    }
    for line, name in _in_block(tree.body, frozenset()):
        if name.partition(".")[0] in imported:  # not a variable that has a module's name
            yield line, name


def _in_block(block: Iterable[ast.AST], guards: frozenset[str]) -> Iterator[tuple[int, str]]:
    for node in block:
        yield from _in_node(node, guards)
        if isinstance(node, ast.If) and isinstance(node.body[-1], _LEAVES):
            guards |= _guards(node.test)


def _in_node(node: ast.AST, guards: frozenset[str]) -> Iterator[tuple[int, str]]:
    match node:
        case ast.If(test=test) | ast.IfExp(test=test) | ast.Assert(test=test):
            guards |= _guards(test)
        case ast.BoolOp():
            guards |= _guards(node)
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            if not _is_guarded(module, name, guards):
                yield node.lineno, f"{module}.{name}"
        case ast.Import(names=names) if "a system" not in guards:
            yield from ((node.lineno, one.name) for one in names if one.name in SOME_SYSTEMS)
    for _, value in ast.iter_fields(node):
        if _is_nodes(value):
            yield from _in_block(value, guards)
        elif isinstance(value, ast.AST):
            yield from _in_node(value, guards)


def _is_nodes(value: object) -> TypeGuard[list[ast.AST]]:
    return isinstance(value, list) and all(isinstance(one, ast.AST) for one in value)


def _guards(test: ast.expr) -> frozenset[str]:
    found = set[str]()
    for node in ast.walk(test):
        match node:
            case ast.Call(
                func=ast.Name(id="hasattr"),
                args=[ast.Name(id=module), ast.Constant(value=str(name))],
            ):
                found.add(f"{module}.{name}")
            case ast.Attribute() if ast.unparse(node) in ("sys.platform", "os.name"):
                found.add("a system")
    return frozenset(found)


def _is_guarded(module: str, name: str, guards: frozenset[str]) -> bool:
    if f"{module}.{name}" in guards:
        return True
    if SOME_BUILDS(f"{module}.{name}"):
        return False
    return "a system" in guards or name in EVERYWHERE.get(module, {name})


def common(nodes: Iterable[ast.AST]) -> set[str]:
    """Return what a stub of typeshed defines for all systems."""
    found = set[str]()
    for node in nodes:
        match node:
            case ast.If(test=test, body=body, orelse=orelse):
                of_a_system = "platform" in ast.unparse(test)
                each = common(body), common(orelse)
                found |= each[0] & each[1] if of_a_system else each[0] | each[1]
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
            case ast.ImportFrom(names=names):
                found |= {one.asname or one.name for one in names}
    return found
