"""The C library ggml by ctypes: its functions, its devices, and graphs that they compute."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.errors import ModelLoadFailed

VERSIONS = ("0.20.",)
"""Beginnings of the versions whose functions are as in `_SIGNATURES`: compared with its headers."""
F32, F16, I32 = 0, 1, 26
"""Types of tensors (ggml.h)."""
GRAPH_NODES = 8192
"""Nodes and leaves of a graph at most: the decoder of 7B has 900, an encoder 1,600."""
_CPU, _GPU, _INTEGRATED = 0, 1, 2
"""Kinds of devices (ggml-backend.h)."""
_IN_WEIGHTS = 1
"""Use of a buffer (ggml-backend.h)."""
_NUMBERS = {"i": ctypes.c_int, "l": ctypes.c_int64, "z": ctypes.c_size_t, "f": ctypes.c_float}
_TYPES = _NUMBERS | {"p": ctypes.c_void_p, "b": ctypes.c_bool, "s": ctypes.c_char_p, "-": None}
_ABORT = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)


class _InitParams(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


_SIGNATURES = """
version:s free:-p tensor_overhead:z graph_overhead_custom:zzb new_tensor:ppiip
new_graph_custom:ppzb build_forward_expand:-pp set_input:-p set_output:-p rms_norm:pppf mul:pppp
add:pppp mul_mat:pppp get_rows:pppp reshape_2d:pppll reshape_3d:ppplll permute:pppiiii cont:ppp
view_1d:ppplz view_2d:pppllzz view_3d:ppplllzzz cpy:pppp concat:ppppi silu:ppp gelu_erf:ppp
rope_ext:pppppiiiffffff flash_attn_ext:ppppppfff quantize_chunk:zipplllp
backend_load_all_from_path:-s backend_dev_count:z backend_dev_get:pz backend_dev_type:ip
backend_dev_description:sp backend_dev_memory:-ppp backend_dev_init:pps backend_dev_backend_reg:pp
backend_reg_get_proc_address:pps backend_alloc_ctx_tensors:ppp backend_buffer_free:-p
backend_buffer_set_usage:-pi backend_tensor_set:-ppzz backend_tensor_get:-ppzz
backend_sched_new:pppizbb backend_sched_reset:-p backend_sched_alloc_graph:bpp
backend_sched_graph_compute:ipp backend_sched_get_buffer_size:zpp
"""
"""Name without its beginning, type of the result, and the types of what follows, of which the first
of a graph's function is its context."""


class Library:
    """Functions of ggml, by their names without `ggml_`.

    Raises:
        errors.ModelLoadFailed: it is not installed, or of a version that was not tested.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: libraries in place of those of the package `libggml-python`."""
        self.folder = folder or _packaged_folder()
        loaded = [self._load(name) for name in ("ggml-base", "ggml-cpu", "ggml")]
        libraries = [one for one in loaded if one is not None]
        if not libraries:
            raise ModelLoadFailed(f"There is no ggml in {self.folder}.", hint=_HINT)
        self._functions: dict[str, Callable[..., Any]] = {}
        lacking = []
        for name, kinds in (one.split(":") for one in _SIGNATURES.split()):
            function = _find(libraries, f"ggml_{name}")
            if function is None:
                lacking.append(name)
                continue
            function.restype = _TYPES[kinds[0]]
            function.argtypes = [_TYPES[kind] for kind in kinds[1:]]
            self._functions[name] = function
        init = _find(libraries, "ggml_init")
        version = self._functions["version"]().decode() if "version" in self._functions else "?"
        if lacking or init is None or not version.startswith(VERSIONS):
            wrong = f"; it lacks ggml_{lacking[0]}" if lacking else ""
            raise ModelLoadFailed(
                f"ggml {version} is not a version that this engine was tested with "
                f"({', '.join(f'{one}*' for one in VERSIONS)}){wrong}.",
                hint=_HINT,
            )
        self.version = version
        self._init = init
        self._init.restype, self._init.argtypes = ctypes.c_void_p, [_InitParams]
        self.backend_load_all_from_path(os.fsencode(self.folder))

    def _load(self, name: str) -> ctypes.CDLL | None:
        beginning = "" if sys.platform == "win32" else "lib"
        ending = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
        file = self.folder / f"{beginning}{name}.{ending}"
        if not file.is_file():
            return None
        try:
            return ctypes.CDLL(os.fspath(file), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise ModelLoadFailed(f"{file} cannot be loaded: {error}.", hint=_HINT) from None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self._functions[name]
        except KeyError:
            raise AttributeError(name) from None

    def context(self, tensors: int, graph_nodes: int = 0) -> int:
        """Return a context for the descriptions of tensors, and of a graph; `free` ends it."""
        size = self.tensor_overhead() * tensors
        if graph_nodes:
            size += self.graph_overhead_custom(graph_nodes, False)
        context: int | None = self._init(_InitParams(size, None, True))
        if context is None:
            raise MemoryError
        return context

    def tensor(self, context: int, kind: int, sizes: Sequence[int]) -> int:
        """Return a tensor; ``sizes``: the quickest dimension first."""
        array = (ctypes.c_int64 * len(sizes))(*sizes)
        tensor: int = self.new_tensor(context, kind, len(sizes), array)
        return tensor

    def send(self, tensor: int, values: npt.NDArray[Any]) -> None:
        """Copy values to a tensor of as many bytes."""
        values = np.ascontiguousarray(values)
        self.backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)

    def floats(self, tensor: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return a copy of a tensor of floats."""
        values = np.empty(shape, np.float32)
        self.backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
        return values

    def devices(self) -> Iterator[tuple[int, int, str]]:
        """Yield the devices that were found: each with its kind and its description."""
        for number in range(self.backend_dev_count()):
            device = self.backend_dev_get(number)
            text = self.backend_dev_description(device).decode(errors="replace")
            yield device, self.backend_dev_type(device), text


_HINT = "Install it: pip install 'libggml-python>=0.20,<0.21', or set 'ggml_libraries'."


def _packaged_folder() -> Path:
    found = find_spec("libggml")
    for place in found.submodule_search_locations or () if found is not None else ():
        for name in ("lib64", "lib", "bin"):
            if (Path(place) / name).is_dir():
                return Path(place) / name
    raise ModelLoadFailed("The package 'libggml-python' is not installed.", hint=_HINT)


def _find(libraries: Sequence[ctypes.CDLL], name: str) -> Any:
    return next((getattr(one, name) for one in libraries if hasattr(one, name)), None)


class Device:
    """Device that computes graphs, with the processor for what it cannot compute.

    One thread at a time uses it. `check`, while it is set, is called between the nodes that the
    processor computes, and raises an error to end the pass.
    """

    def __init__(self, library: Library, wanted: str, threads: int) -> None:
        """``wanted``: 'auto', 'cpu' or 'cuda' (which stands for any GPU)."""
        self.library, self.check = library, None
        found = list(library.devices())
        order = [] if wanted == "cpu" else [_GPU, _INTEGRATED]
        gpus = [one for kind in order for one in found if one[1] == kind]
        if wanted == "cuda" and not gpus:
            raise ModelLoadFailed("ggml finds no GPU; its libraries are for the processor.")
        cpu = next((one for one in found if one[1] == _CPU), None)
        if cpu is None:
            raise ModelLoadFailed(f"ggml in {library.folder} has no processor.", hint=_HINT)
        chosen = [*gpus[:1], cpu]
        self.handle, kind, self.description = chosen[0]
        self.type = "gpu" if kind != _CPU else "cpu"
        self._backends = [library.backend_dev_init(one[0], None) for one in chosen]
        if None in self._backends:
            raise ModelLoadFailed(f"{self.description} cannot be used.")
        self._stopped: BaseException | None = None
        self._abort = _ABORT(self._aborts)
        registry = library.backend_dev_backend_reg(cpu[0])
        for name, kinds, values in (
            ("ggml_backend_set_n_threads", [ctypes.c_int], [threads]),
            ("ggml_backend_set_abort_callback", [_ABORT, ctypes.c_void_p], [self._abort, None]),
        ):
            address = library.backend_reg_get_proc_address(registry, name.encode())
            if address:
                set_ = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *kinds)(address)
                set_(self._backends[-1], *values)
        backends = (ctypes.c_void_p * len(self._backends))(*self._backends)
        self._scheduler = library.backend_sched_new(
            backends, None, len(self._backends), GRAPH_NODES, False, True
        )

    check: Callable[[], None] | None

    def _aborts(self, _: int | None) -> bool:
        if self.check is not None and self._stopped is None:
            try:
                self.check()
            except BaseException as error:  # raised anew by `compute`: it cannot pass through C
                self._stopped = error
        return self._stopped is not None

    def free_bytes(self) -> int:
        """Return the free memory of the device, as its library says."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.library.backend_dev_memory(self.handle, ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, context: int) -> int:
        """Allocate the tensors of a context on the device; return their buffer.

        Raises:
            MemoryError: they do not fit.
        """
        buffer: int | None = self.library.backend_alloc_ctx_tensors(context, self._backends[0])
        if buffer is None:
            raise MemoryError
        self.library.backend_buffer_set_usage(buffer, _IN_WEIGHTS)
        return buffer

    @contextmanager
    def graph(self) -> Iterator[Graph]:
        """Provide an empty graph, whose results are valid until the end."""
        context = self.library.context(GRAPH_NODES, GRAPH_NODES)
        try:
            yield Graph(self, context)
        finally:
            self.library.free(context)

    def compute(self, graph: int, inputs: Sequence[tuple[int, npt.NDArray[Any]]]) -> None:
        """Compute a graph with these inputs.

        Raises:
            MemoryError: its results do not fit.
        """
        library = self.library
        library.backend_sched_reset(self._scheduler)
        if not library.backend_sched_alloc_graph(self._scheduler, graph):
            raise MemoryError
        for tensor, values in inputs:
            library.send(tensor, values)
        status = library.backend_sched_graph_compute(self._scheduler, graph)
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            raise stopped
        if status:
            raise RuntimeError(f"ggml could not compute: status {status}")

    @property
    def working_bytes(self) -> int:
        """Return the bytes of the results of the largest graph so far."""
        sizes = self.library.backend_sched_get_buffer_size
        return sum(sizes(self._scheduler, one) for one in self._backends)


class Graph:
    """Graph in construction. A function of `Library` without its context adds a node."""

    def __init__(self, device: Device, context: int) -> None:
        self._device, self._context = device, context
        self._library = device.library
        self._graph = self._library.new_graph_custom(context, GRAPH_NODES, False)
        self._inputs: list[tuple[int, npt.NDArray[Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        return partial(getattr(self._library, name), self._context)

    def input(self, values: npt.NDArray[Any]) -> int:
        """Return a tensor with these values (float32, float16 or int32)."""
        kind = {"f4": F32, "f2": F16, "i4": I32}[values.dtype.str[1:]]
        tensor = self._library.tensor(self._context, kind, values.shape[::-1])
        self._library.set_input(tensor)
        self._inputs.append((tensor, values))
        return tensor

    def normed(self, x: int, weight: int, epsilon: float) -> int:
        """Return an RMS norm."""
        return self.mul(self.rms_norm(x, epsilon), weight)

    def also(self, node: int, *, kept: bool = False) -> int:
        """Have a node computed; ``kept``: its values are read afterwards."""
        if kept:
            self._library.set_output(node)
        self._library.build_forward_expand(self._graph, node)
        return node

    def compute(self) -> None:
        """Compute it, as `Device.compute`."""
        self._device.compute(self._graph, self._inputs)

    def floats(self, tensor: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return the values of a tensor that was kept."""
        return self._library.floats(tensor, shape)
