"""Machine code of numba kernels on disk: where it is kept, when it is out of date, and how it is loaded.

numba's own cache differs in two ways. It keeps the code beside the source file, where an upgrade or a new installation
removes it; here it is in the user's cache folder. And before it loads code it registers everything that may be needed
to compile, which imports scipy and takes longer than loading the kernels; here nothing is registered before something
is compiled.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config, event
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.runtime import rtsys

from renderers.machine_code import digest_files

UNCOUNTED: dict[str, Any] = {"_nrt": False}  # options of njit, see `compiler`


class _Locator(_CacheLocator):
    """The folder of a kernel: in NUMBA_CACHE_DIR if set, else the user's cache folder, else beside the source file."""

    sources: tuple[str, ...] = ()  # set per module by `compiler`

    def __init__(self, folder: Path, function: Callable) -> None:
        self._folder = folder
        self._py_file = function.__code__.co_filename
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return digest_files(self.sources)

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable, file: str) -> _Locator | None:
        beside = Path(file).parent / "__pycache__"
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "menagerie4d" / "kernels"
        # Named by content, so that versions that are installed side by side do not replace each other's code.
        named = f"{Path(file).stem}-{digest_files(cls.sources)[:16]}"
        for folder in (Path(getattr(config, "CACHE_DIR", "") or user) / named, beside):
            if _writable(folder):
                return cls(folder, function)
        return None


@cache
def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


class _Cache(FunctionCache):
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # As in the base class, without target_context.refresh(), which registers what is needed to compile. Compiling
        # calls it again. Kernels that allocate arrays need the memory manager.
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _PauseCollection(event.Listener):
    """Switch the garbage collector off while numba compiles, which creates millions of objects that are kept."""

    def __init__(self) -> None:
        self.depth, self.was_enabled = 0, False

    def on_start(self, event: event.Event) -> None:
        if self.depth == 0:
            self.was_enabled = gc.isenabled()
            gc.disable()
        self.depth += 1

    def on_end(self, event: event.Event) -> None:
        self.depth -= 1
        if self.depth == 0 and self.was_enabled:
            gc.enable()


event.register("numba:compile", _PauseCollection())


class _CompileNotice(event.Listener):
    """Prints one line to stderr when a kernel of a module is compiled rather than loaded from the cache."""

    def __init__(self, module: str, notice: str) -> None:
        self.module, self.notice, self.printed = module, notice, False

    def on_start(self, event: event.Event) -> None:
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.printed and getattr(function, "__module__", None) == self.module:
            self.printed = True
            print(self.notice, file=sys.stderr, flush=True)

    def on_end(self, event: event.Event) -> None:
        pass


def announce_compilation(module: str, notice: str) -> None:
    """Print a line to stderr, once, when the first kernel defined in a module is compiled."""
    event.register("numba:compile", _CompileNotice(module, notice))


def compiler(sources: Sequence[str], counts_references: bool = True) -> Callable[[Callable], Callable]:
    """Return a decorator for kernels: compiled on the first call, cached, run without the global interpreter lock.

    Args:
        sources: all files that the kernels are compiled from. Machine code of other versions of them is not used.
        counts_references: without it, kernels cannot create arrays, and do not change an atomic counter whenever they
            take an array from a tuple, which can be 40 % of their time. Functions that they call need `UNCOUNTED`.
    """
    options: dict[str, Any] = {} if counts_references else UNCOUNTED
    locator = type("_KernelLocator", (_Locator,), {"sources": tuple(sources)})
    implementation = type("_KernelCacheImpl", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    kernel_cache = type("_KernelCache", (_Cache,), {"_impl_class": implementation})

    def compile(function: Callable) -> Callable:
        kernel = njit(function, nogil=True, error_model="numpy", **options)
        try:
            kernel._cache = kernel_cache(function)  # type: ignore[attr-defined]  # as Dispatcher.enable_caching
        except RuntimeError:  # no folder is writable: every process compiles again
            pass
        return kernel

    return compile
