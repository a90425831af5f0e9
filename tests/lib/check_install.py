#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The library as a package: installed into a folder of its own, and used by programs that are built with
nothing but what pkg-config says, shared and static, in C and (where there is a compiler) in C++.

    check_install.py CMAKE BUILD-FOLDER C-COMPILER [C++-COMPILER]"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
EXAMPLE_SECONDS = 100


def run(command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(holds, what):
    if not holds:
        sys.exit(what)


def installed_files(prefix):
    return sorted(p.relative_to(prefix).as_posix() for p in prefix.rglob("*") if not p.is_dir())


def check_files(prefix, libdir):
    """All that belongs to the library and nothing else."""
    headers = [p.relative_to(ROOT).as_posix() for p in (ROOT / "include").rglob("*.h")]
    names = [p.name for p in libdir.glob("liblockstep.*")]
    expected = sorted(headers + [(libdir / name).relative_to(prefix).as_posix() for name in names] +
                      [(libdir / "pkgconfig/lockstep.pc").relative_to(prefix).as_posix()])
    check({"liblockstep.so", "liblockstep.so.0", "liblockstep.a"} <= set(names), f"the libraries are {names}")
    check(installed_files(prefix) == expected, f"installed: {installed_files(prefix)}, expected: {expected}")


class Package:
    """What pkg-config says of the installed library."""

    def __init__(self, libdir):
        self.libdir = libdir
        self.environment = {**os.environ, "PKG_CONFIG_LIBDIR": str(libdir / "pkgconfig"), "PKG_CONFIG_PATH": ""}

    def ask(self, *options):
        return run(["pkg-config", *options, "lockstep"], env=self.environment).split()

    def build(self, compiler, source, program, *options):
        static = "-static" in options
        flags = self.ask(*(["--static"] if static else []), "--cflags", "--libs")
        run([compiler, *options, source, *flags, "-o", program])

    def run(self, program):
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.libdir)}
        return run([program], env=environment, timeout=EXAMPLE_SECONDS)


def check_headers(package, compiler, standard, suffix, folder):
    """Each header alone, twice, and all in the opposite order."""
    names = [p.relative_to(ROOT / "include").as_posix() for p in (ROOT / "include").rglob("*.h")]
    flags = package.ask("--cflags")
    for i, group in enumerate([[name, name] for name in names] + [sorted(names, reverse=True)]):
        source = folder / f"header{i}.{suffix}"
        source.write_text("".join(f"#include <{name}>\n" for name in group) + "int main(void)\n{\n    return 0;\n}\n",
                          encoding="utf-8")
        run([compiler, f"-std={standard}", "-fsyntax-only", *STRICT, *flags, source])


def needed(program):
    return run(["readelf", "-d", program]).count("[liblockstep.so.0]")


def check_programs(package, cc, cxx, folder):
    dot = ROOT / "examples/dot.c"
    package.build(cc, dot, folder / "shared", "-std=c17", *STRICT)
    check(needed(folder / "shared") == 1, "the shared program does not need liblockstep.so.0")
    check("killing process" in package.run(folder / "shared"), "the shared program did not do its work")
    package.build(cc, dot, folder / "static", "-std=c17", "-static", *STRICT)
    check(needed(folder / "static") == 0, "the static program needs liblockstep.so.0")
    check("killing process" in package.run(folder / "static"), "the static program did not do its work")
    if cxx:
        package.build(cxx, ROOT / "examples/eigenvalue.cpp", folder / "shared++", "-std=c++17", *STRICT)
        check("eigenvalue" in package.run(folder / "shared++"), "the C++ program did not do its work")


def check_clash(package, cc, folder):
    """A program may have functions that are called as parts of the library are."""
    source = folder / "clash.c"
    names = ["clock_ns", "device_post", "comm_all_reduce", "lib_fail", "xalloc", "lib_world_run"]
    source.write_text("#include <lockstep.h>\n" + "".join(f"int {name}(void);\nint {name}(void)\n{{\n    return 1;\n}}\n"
                                                          for name in names) +
                      "int main(void)\n{\n    return lockstep_version()[0] == 0;\n}\n", encoding="utf-8")
    package.build(cc, source, folder / "clash", "-static", *STRICT)
    package.run(folder / "clash")


def main():
    cmake, build, cc = sys.argv[1:4]
    cxx = sys.argv[4] if len(sys.argv) > 4 else ""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prefix = folder / "prefix"
        run([cmake, "--install", build, "--component", "library", "--prefix", prefix])
        libdir = next(prefix.rglob("liblockstep.so")).parent
        package = Package(libdir)
        check_files(prefix, libdir)
        version = package.ask("--modversion")
        check(list(libdir.glob(f"liblockstep.so.{version[0]}")), f"pkg-config says version {version}")
        check_headers(package, cc, "c17", "c", folder)
        if cxx:
            check_headers(package, cxx, "c++17", "cpp", folder)
        check_programs(package, cc, cxx, folder)
        check_clash(package, cc, folder)
    print(f"installed, built and run: {cc} {cxx}, shared and static")


if __name__ == "__main__":
    main()
