#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a program that was linked before relies on, against tests/lib/abi.txt:

    check_abi.py SHARED-LIBRARY C-COMPILER [--static ARCHIVE] [--update]

The exported symbols with their version nodes, the types of every function, the size, alignment and
fields of every public struct, the value of every constant. A static archive must define no other
global symbol. --update writes abi.txt anew."""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import library_headers  # noqa: E402 (found by the line above)

LIST = ROOT / "tests/lib/abi.txt"
HEAD = """# SPDX-License-Identifier: Apache-2.0
# The binary interface of liblockstep on 64-bit Linux, compared by tests/lib/check_abi.py, which says how
# to write this file anew. A line may be added in a release; one that changes or goes breaks programs that
# were built before, and wants a new version node in src/lib/lockstep.map or a new SOVERSION.
"""
HOW = """
If this is intended: a program built against the last release must still run. Added functions go into
src/lib/lockstep.map (under a new version node once 0.1 is released); a changed struct or type
wants a new SOVERSION in cmake/library.cmake. Then write the list anew and commit it:

    python3 tests/lib/check_abi.py BUILD/liblockstep.so cc --update
"""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def exported(library):
    """["name@@NODE"] that the dynamic loader sees; the nodes themselves are absolute symbols."""
    out = []
    for line in run("nm", "-D", "--defined-only", "--with-symbol-versions", library).splitlines():
        _, kind, name = line.split(maxsplit=2)
        if kind != "A":
            out.append(name)
    return sorted(out)


def layout(headers, compiler):
    """Lines about structs and constants, as the compiler has them."""
    lines = []
    for name, fields in library_headers.structs(headers).items():
        t = f"struct {name}"
        lines.append(f'printf("struct %s size %zu align %zu\\n", "{name}", sizeof({t}), _Alignof({t}));')
        for field in fields:
            lines.append(f'printf("field %s.%s at %zu size %zu\\n", "{name}", "{field}", '
                         f"offsetof({t}, {field}), sizeof((({t} *)0)->{field}));")
    for name in library_headers.constants(headers):
        lines.append(f'printf("constant %s = %lld\\n", "{name}", (long long){name});')
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "layout.c"
        source.write_text("#include <lockstep.h>\n#include <stdio.h>\nint main(void)\n{\n" +
                          "\n".join(lines) + "\nreturn 0;\n}\n", encoding="utf-8")
        program = str(source.with_suffix(""))
        run(compiler, "-std=c17", "-I", str(ROOT / "include"), str(source), "-o", program)
        return run(program).splitlines()


def interface(library, compiler):
    headers = library_headers.read_all(ROOT / "include")
    symbols = exported(library)
    types = library_headers.prototypes(headers)
    lines = [f"symbol {symbol}" for symbol in symbols]
    lines += [f"function {name}: {text}" for name, text in sorted(types.items())]
    return lines + layout(headers, compiler), symbols, types


def key(line):
    """What a line is about."""
    return re.match(r"\w+ [\w.]+", line).group(0)


def differences(old, new):
    """Sentences about what is not the same."""
    before, after = ({key(line): line for line in lines} for lines in (old, new))
    out = [f"gone:    {before[k]}" for k in before if k not in after]
    out += [f"changed: {before[k]}\n    now: {after[k]}" for k in before if k in after and before[k] != after[k]]
    return out + [f"new:     {after[k]}" for k in after if k not in before]


def odd_symbols(symbols, types):
    """What must not be exported, or is declared and is not."""
    names = {symbol.split("@")[0] for symbol in symbols}
    declared = {name for name, text in types.items() if not text.startswith("typedef")}
    out = [f"exported, but no lockstep_ name: {name}" for name in sorted(names) if not name.startswith("lockstep_")]
    out += [f"exported, but in no public header: {name}" for name in sorted(names - declared)]
    out += [f"declared, but not exported (src/lib/lockstep.map): {name}" for name in sorted(declared - names)]
    return out + [f"exported without a version node: {s}" for s in symbols if "@@LOCKSTEP_" not in s]


def odd_archive(archive, symbols):
    """Global definitions of the static library other than the public ones: they could clash."""
    public = {symbol.split("@")[0] for symbol in symbols}
    found = set()
    for line in run("nm", "-g", "--defined-only", archive).splitlines():
        parts = line.split()
        if len(parts) == 3:
            found.add(parts[2])
    out = [f"global in {pathlib.Path(archive).name}, but not public: {name}" for name in sorted(found - public)]
    return out + [f"not in {pathlib.Path(archive).name}: {name}" for name in sorted(public - found)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("library")
    parser.add_argument("compiler")
    parser.add_argument("--static")
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    new, symbols, types = interface(arguments.library, arguments.compiler)
    if arguments.update:
        LIST.write_text(HEAD + "\n".join(new) + "\n", encoding="utf-8")
        return 0
    old = [line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found = odd_symbols(symbols, types)
    if arguments.static:
        found += odd_archive(arguments.static, symbols)
    changes = differences(old, new)
    print("\n".join(found + changes + ([HOW] if changes else [])))
    print(f"{len(symbols)} symbols, {len(new)} lines, {len(found) + len(changes)} findings")
    return 1 if found or changes else 0


if __name__ == "__main__":
    sys.exit(main())
