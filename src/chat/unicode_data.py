#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes unicode_data.c from what this Python knows: python3 unicode_data.py > unicode_data.c

Python 3.11 (Unicode 14.0) wrote the file that is committed.
"""
import re
import sys
import unicodedata

MAX = 0x110000
WORD = re.compile(r"\w")


def chars():
    for code in range(MAX):
        yield code, chr(code)


def is_ignorable(c):
    # str.lower() gives a final sigma after a cased letter when only ignorable ones lie in between.
    if is_cased(c):
        return not (" " + c + "\u03a3").lower().endswith("\u03c2")
    return ("A" + c + "\u03a3").lower().endswith("\u03c2")


def is_cased(c):
    return c.isupper() or c.islower() or c.istitle()


def properties(c):
    surrogate = 0xD800 <= ord(c) <= 0xDFFF
    return (
        c.isprintable() << 0
        | c.isalpha() << 1
        | c.isdecimal() << 2
        | c.isdigit() << 3
        | c.isnumeric() << 4
        | c.isspace() << 5
        | c.isupper() << 6
        | c.islower() << 7
        | (c.istitle() and not c.isupper()) << 8
        | (not surrogate and is_ignorable(c)) << 9
        | (WORD.fullmatch(c) is not None) << 10
    )


def runs():
    last = None
    for code, c in chars():
        flags = properties(c)
        if flags != last:
            yield code, flags
            last = flags


def shifts(mapping):
    """Merges single code points into runs of step 1 or 2 with the same delta."""
    found = []
    for code, delta in mapping:
        if found:
            first, last, d, step = found[-1]
            gap = code - last
            if d == delta and gap in (1, 2) and (step == gap or first == last):
                found[-1] = (first, code, d, gap)
                continue
        found.append((code, code, delta, 1))
    return found


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        print("    " + " ".join(items[i : i + per_line]))


def main():
    print("/* SPDX-License-Identifier: Apache-2.0 */")
    print(f"/* Written by unicode_data.py with Unicode {unicodedata.unidata_version}; do not edit. */")
    print('#include "chat/unicode.h"\n')
    print("/* clang-format off */")
    print("const uint32_t unicode_runs[] = {")
    rows([f"{code << 11 | flags:#x}," for code, flags in runs()], 8)
    print("};\nconst size_t unicode_n_runs = ARRAY_LEN(unicode_runs);\n")
    cases = {"upper": str.upper, "lower": str.lower, "title": str.title}
    for name, function in cases.items():
        simple, special = [], []
        for code, c in chars():
            mapped = function(c)
            if len(mapped) > 1:
                special.append((code, [ord(x) for x in mapped]))
            elif mapped != c:
                simple.append((code, ord(mapped) - code))
        print(f"static const struct unicode_shift {name}_shifts[] = {{")
        rows([f"{{{a:#x},{b:#x},{d},{s}}}," for a, b, d, s in shifts(simple)], 3)
        print("};\n")
        print(f"static const struct unicode_special {name}_specials[] = {{")
        rows(
            [f"{{{code:#x},{{{','.join(f'{x:#x}' for x in to)}}}}}," for code, to in special],
            3,
        )
        print("};\n")
    for what, kind in (("shift", "shifts"), ("special", "specials")):
        print(f"const struct unicode_{what} *const unicode_{kind}[3] = {{")
        print("    " + ", ".join(f"{name}_{kind}" for name in cases) + "};")
        print(f"const size_t unicode_n_{kind}[3] = {{")
        print("    " + ", ".join(f"ARRAY_LEN({name}_{kind})" for name in cases) + "};")
    print("/* clang-format on */")


if __name__ == "__main__":
    sys.exit(main())
