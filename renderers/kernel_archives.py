"""Write archives of machine code for `renderers.machine_code`: compile the kernels of a package ahead of time.

The same sources and the same versions of numba and llvmlite give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from renderers.machine_code import ALLOCATOR, ENTRIES, ENTRY, LEVELS, MACHINES, Kind, digest_files

# How numba compiles for a level: by default for the processor that LLVM knows by the name of the level. For Arm, LLVM's
# highest effort joins products and sums of splats to fused operations by what is fast on a processor; with the next one
# it does as for x86-64, and images have the same bits.
_SETTINGS = {"aarch64": {"NUMBA_CPU_NAME": "generic", "NUMBA_OPT": "2"}}


@dataclass(frozen=True)
class Signature:
    """The kinds of the arguments of a kernel and of its result (`renderers.machine_code`)."""

    arguments: list[Kind]
    returns: str | None = None


def run_compiler(
    module: str, description: str, archives: Path, signatures: Callable[[], dict[str, Signature]]
) -> None:
    """The command `python -m MODULE [--level LEVEL] [folder]`: compile for all levels, or for one.

    Each level is compiled in a process of its own, since numba chooses its target once. Code for Arm is compiled on
    x86-64, too: numba's LLVM has both targets.

    Args:
        module: the module of the command. Its function `write` writes an archive for the target that numba is set to,
            given the path and the signatures.
        description: for its help.
        archives: the folder to write to by default.
        signatures: returns the signatures of the kernels; called once, in a process that can run kernels.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("folder", type=Path, nargs="?", default=archives, help="where to write the archives")
    parser.add_argument("--level", choices=LEVELS, help="compile for this level only")
    options = parser.parse_args()
    if os.environ.get("MENAGERIE_KERNELS") != "numba":
        # Importing a package of kernels loads its machine code, which tells no signatures: begin again with numba.
        environment = {**os.environ, "MENAGERIE_KERNELS": "numba"}
        sys.exit(subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], env=environment).returncode)
    inferred = signatures()
    if not inferred:
        raise SystemExit(f"{module}: no kernel was called, expected all of them: nothing was written")
    text = json.dumps({name: asdict(signature) for name, signature in inferred.items()})
    options.folder.mkdir(parents=True, exist_ok=True)
    code = "from renderers.kernel_archives import write_level; write_level()"
    for level in [options.level] if options.level else LEVELS:
        target = {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": "", **_SETTINGS.get(level, {})}
        command = [sys.executable, "-c", code, module, level, str(options.folder)]
        subprocess.run(command, env={**os.environ, **target}, input=text, text=True, check=True)


def write_level() -> None:
    """Write the archive of one level: the process that `run_compiler` starts, before anything imports numba."""
    import llvmlite.binding as llvm

    module, level, folder = sys.argv[1:]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    (machine,) = (name for name, levels in MACHINES.items() if level in levels)
    llvm.get_process_triple = lambda: f"{machine}-unknown-linux-gnu"  # numba compiles for it
    given = {name: Signature(**entry) for name, entry in json.load(sys.stdin).items()}
    import_module(module).write(Path(folder) / f"{level}.zip", given)


def write_archive(
    path: Path,
    kernels: Any,
    signatures: Mapping[str, Signature],
    sources: Sequence[str],
    tuples: Mapping[str, type] | None = None,
    **options: Any,
) -> None:
    """Compile kernels and write their archive.

    Args:
        path: of the archive.
        kernels: has the kernels as attributes.
        signatures: of the kernels to compile.
        sources: the files that the kernels are compiled from.
        tuples: the classes of named tuples in signatures, by name.
        options: of `numba.njit`, beside those of all kernels.
    """
    entries, objects, code = {}, {ALLOCATOR: _assemble(_ALLOCATOR)}, []
    for name, signature in signatures.items():
        result, objects[name] = _compile(getattr(kernels, name).py_func, signature, tuples or {}, options)
        code.append(_entry(name, result))
        entries[name] = asdict(signature)
    objects[ENTRIES] = _assemble("\n".join(code))
    index = {"sources": digest_files(tuple(sources)), "kernels": entries}
    files = {"kernels.json": json.dumps(index, indent=1).encode()}
    files |= {f"{name}.o": content for name, content in objects.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # ZipInfo has a fixed date


def signature_of(kernel: Any) -> Signature:
    """Return the signature that numba inferred for the calls of a kernel in this process.

    Raises:
        TypeError: it was not called, or with arguments of several types.
    """
    found = {json.dumps(asdict(_signature(result))): result for result in kernel.overloads.values()}
    if len(found) != 1:
        raise TypeError(
            f"{kernel.__name__}: expected calls with arguments of one type each, got {list(found)}"
        )
    return _signature(next(iter(found.values())))


def _signature(result: Any) -> Signature:
    from numba import types

    returns = result.signature.return_type
    return Signature(
        [_kind(argument) for argument in result.signature.args],
        None if returns == types.none else str(returns),
    )


def _kind(argument: Any) -> Kind:
    """Return the kind of an argument of a numba type."""
    from numba import types as numba_types

    types: Any = numba_types  # numba's stubs lack the attributes of its types
    if isinstance(argument, types.BaseNamedTuple):
        kinds = [_kind(item) for item in argument.types]
        return {"name": argument.instance_class.__name__, "fields": list(argument.fields), "kinds": kinds}
    if isinstance(argument, types.BaseTuple):
        return [_kind(item) for item in argument.types]
    if isinstance(argument, types.Array):
        if argument.layout != "C":
            raise TypeError(f"expected C-contiguous arrays, got {argument}")
        return f"{argument.dtype}[{argument.ndim}]"
    return str(argument)


def _type(kind: Kind, tuples: Mapping[str, type]) -> Any:
    """Return the numba type of a kind of argument."""
    from numba import types

    if isinstance(kind, dict):
        items = [_type(item, tuples) for item in kind["kinds"]]
        return types.BaseTuple.from_types(items, tuples[kind["name"]])
    if isinstance(kind, list):
        return types.BaseTuple.from_types([_type(item, tuples) for item in kind])
    base, _, size = kind.rstrip("]").partition("[")
    element = types.boolean if base == "bool" else getattr(types, base)
    return types.Array(element, int(size), "C") if size else element


def _compile(
    function: Callable, signature: Signature, tuples: Mapping[str, type], options: dict[str, Any]
) -> tuple[Any, bytes]:
    """Return numba's result and the object of one kernel, without the wrappers that need Python and numba."""
    from numba import njit

    # Options that numba's annotations of `njit` lack.
    options = {**options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    kernel: Any = njit(function, nogil=True, error_model="numpy", **options)
    kernel.compile(tuple(_type(kind, tuples) for kind in signature.arguments))
    (result,) = kernel.overloads.values()
    if _signature(result) != signature:
        raise TypeError(f"{function.__name__}: expected {signature}, compiled {_signature(result)}")
    _, _, (content, _) = result.library.serialize_using_object_code()
    return result, content


def _entry(name: str, result: Any) -> str:
    """Return LLVM assembly of a function that passes words in memory as the arguments of a kernel."""
    from llvmlite import ir
    from numba.core.registry import cpu_target

    descriptor = result.fndesc
    convention = cpu_target.target_context.call_conv
    arguments = convention.get_function_type(descriptor.restype, descriptor.argtypes).args[2:]
    symbol, types, passed = f'@"{descriptor.llvm_func_name}"', ["ptr", "ptr"], ["ptr %result", "ptr %error"]
    lines = []
    for n, argument in enumerate(arguments):
        lines += [f"  %p{n} = getelementptr i64, ptr %words, i64 {n}", f"  %w{n} = load i64, ptr %p{n}"]
        types.append("ptr" if isinstance(argument, ir.PointerType) else str(argument))
        if types[-1] == "i64":
            passed.append(f"i64 %w{n}")
            continue
        cast = {"ptr": "inttoptr", "double": "bitcast"}.get(types[-1], "trunc")
        lines.append(f"  %a{n} = {cast} i64 %w{n} to {types[-1]}")
        passed.append(f"{types[-1]} %a{n}")
    return "\n".join(
        [
            f"declare i32 {symbol}({', '.join(types)})",
            f'define i32 @"{ENTRY}{name}"(ptr %words, ptr %result) {{',
            "  %error = alloca ptr",
            *lines,
            f"  %status = call i32 {symbol}({', '.join(passed)})",
            "  ret i32 %status",
            "}",
        ]
    )


def _assemble(code: str) -> bytes:
    """Compile LLVM assembly to an object."""
    import llvmlite.binding as llvm

    triple = llvm.get_process_triple()
    processor = "x86-64" if triple.startswith("x86_64") else "generic"
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=2, reloc="pic")
    module = llvm.parse_assembly(code)
    module.verify()
    return machine.emit_object(module)


# The functions of numba's runtime that kernels call for temporary arrays, on top of malloc and free. The layout of
# numba's `MemInfo` (numba/core/runtime/nrt.cpp): reference count, destructor, its argument, address of the data, size,
# allocator. The data follows it in one block of memory, which is freed with it.
_ALLOCATOR = """
declare ptr @malloc(i64)
declare void @free(ptr)

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %alignment) {
  %align = zext i32 %alignment to i64
  %padding = add i64 %align, 48
  %total = add i64 %size, %padding
  %block = call ptr @malloc(i64 %total)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %end, label %fill
fill:
  %start = ptrtoint ptr %block to i64
  %after = add i64 %start, 47
  %end_of_padding = add i64 %after, %align
  %mask = sub i64 0, %align
  %aligned = and i64 %end_of_padding, %mask
  %data = inttoptr i64 %aligned to ptr
  store i64 1, ptr %block
  %destructor = getelementptr i64, ptr %block, i64 1
  store ptr null, ptr %destructor
  %argument = getelementptr i64, ptr %block, i64 2
  store ptr null, ptr %argument
  %address = getelementptr i64, ptr %block, i64 3
  store ptr %data, ptr %address
  %bytes = getelementptr i64, ptr %block, i64 4
  store i64 %size, ptr %bytes
  %allocator = getelementptr i64, ptr %block, i64 5
  store ptr null, ptr %allocator
  br label %end
end:
  ret ptr %block
}

define void @NRT_MemInfo_call_dtor(ptr %block) {
  call void @free(ptr %block)
  ret void
}

define void @NRT_Free(ptr %block) {
  call void @free(ptr %block)
  ret void
}
"""
