# SPDX-License-Identifier: Apache-2.0
"""The public headers of liblockstep, read as what a program sees: for the reference page and the ABI
test. It knows the way in which these headers are written (STYLE, clang-format), not C."""

import pathlib
import re

HEADERS = ("lockstep.h", "lockstep/types.h", "lockstep/device.h", "lockstep/tensor.h", "lockstep/world.h",
           "lockstep/collectives.h", "lockstep/watch.h")
MARK = "/* SPDX-License-Identifier: Apache-2.0 */\n"


class Unreadable(Exception):
    """A header is written in a way that this module does not know."""


class Item:
    """Declarations without a blank line between them, with the comment before them."""

    def __init__(self, header, section, comment, code):
        self.header = header
        self.section = section  # "Simulated faults", or "" before the first such line
        self.comment = comment  # as prose, "" where there is none
        self.code = code

    def names(self):
        """What is declared: "struct x", "enum x", "x()", a typedef, a macro; constants of a nameless enum."""
        found = []
        for declaration in declarations(self.code):
            flat = " ".join(bare(declaration).split())
            for pattern, form in ((r"^#define (\w+)", "%s"), (r"^typedef .*?(\w+) ?\(", "%s"),
                                  (r"^((?:struct|enum) \w+) ?[{;]", "%s"), (r"(\w+) ?\(", "%s()")):
                match = re.search(pattern, flat)
                if match:
                    found.append(form % match.group(1))
                    break
            else:
                if not flat.startswith("enum {"):
                    raise Unreadable(f"{self.header}: no name in: {flat[:100]}")
                found += re.findall(r"\b(\w+) =", flat)
        return found


def bare(code):
    """code without its comments."""
    return re.sub(r"/\*.*?\*/", " ", code, flags=re.S)


def prose(comment):
    """The text of a block comment, its line breaks gone and its paragraphs kept."""
    lines = [re.sub(r"^\s*\*? ?", "", line) for line in comment[2:-2].split("\n")]
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip())
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def declarations(code):
    """code split at the ends of declarations; a macro is one line."""
    out, depth, current = [], 0, ""
    for token in re.split(r"(/\*.*?\*/|#[^\n]*\n|[{};])", code, flags=re.S):
        if token.startswith("/*"):
            current += token
            continue
        if token.startswith("#"):
            out.append(token)
            continue
        depth += (token == "{") - (token == "}")
        current += token
        if token == ";" and depth == 0:
            out.append(current)
            current = ""
    if bare(current).strip():
        raise Unreadable(f"a declaration without an end: {current[:100]}")
    return out


def blocks(text):
    """text split at blank lines outside of braces and comments."""
    out, current, depth = [], [], 0
    for line in text.split("\n"):
        if not line.strip() and depth == 0:
            if current:
                out.append("\n".join(current))
            current = []
            continue
        current.append(line)
        joined = "\n".join(current)
        depth = bare(joined).count("{") - bare(joined).count("}")
        depth += joined.count("/*") - joined.count("*/")
    return out + (["\n".join(current)] if current else [])


class Header:
    """One header: what its lead comment says, and its items."""

    def __init__(self, include, name):
        text = (pathlib.Path(include) / name).read_text(encoding="utf-8")
        self.name = name
        if not text.startswith(MARK + "/*"):
            raise Unreadable(f"{name} does not begin with its licence and a lead comment")
        lead = re.match(r"/\*.*?\*/", text[len(MARK):], re.S).group(0)
        self.lead = prose(lead)
        self.items = []
        guards = re.findall(r"#ifdef __cplusplus\n.*?#endif\n", text, re.S)
        if len(guards) == 2:
            body = text.split(guards[0])[1].split(guards[1])[0]
            self.read(body)
        elif name != "lockstep.h":
            raise Unreadable(f"{name} is not between extern \"C\" {{ and }}")

    def read(self, body):
        section = ""
        for block in blocks(body):
            comment = re.match(r"/\*.*?\*/", block, re.S)
            title = re.fullmatch(r"/\* -+ (.*?) -+ \*/", block)
            if title:
                section = title.group(1)
                continue
            code = block[comment.end():] if comment else block
            if code.strip():
                text = prose(comment.group(0)) if comment else ""
                self.items.append(Item(self.name, section, text, code.strip("\n") + "\n"))


def read_all(include):
    return [Header(include, name) for name in HEADERS]


# ---- What the ABI is made of ----

def split_arguments(text):
    """At commas outside of parentheses."""
    out, depth, current = [], 0, ""
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            out.append(current)
            current = ""
        else:
            current += c
    return [a.strip() for a in out + [current] if a.strip()]


def nameless(parameter):
    """A parameter's type."""
    flat = re.sub(r"\s+", " ", parameter).strip()
    if flat == "void":
        return flat
    return re.sub(r"\s*\b\w+(\[\])?$", r"\1", flat).replace("* ", "*")


def prototypes(headers):
    """{name: "result (types)"} of functions and of types of functions."""
    out = {}
    for header in headers:
        for item in header.items:
            for declaration in declarations(item.code):
                flat = " ".join(bare(declaration).replace("LOCKSTEP_API", " ").split())
                match = re.match(r"^(.*?[\s*])(\w+) ?\((.*)\);$", flat)
                if match and "{" not in flat and not flat.startswith("#"):
                    types = ", ".join(nameless(p) for p in split_arguments(match.group(3)))
                    out[match.group(2)] = f"{match.group(1).strip()} ({types})"
    return out


def structs(headers):
    """{name: [field, ...]} of the structs whose fields are public."""
    out = {}
    for header in headers:
        for item in header.items:
            for declaration in declarations(item.code):
                match = re.match(r"^\s*struct (\w+) \{(.*)\};\s*$", bare(declaration), re.S)
                if match:
                    fields = []
                    for field in match.group(2).split(";"):
                        if field.strip():
                            name = re.search(r"\(\*(\w+)\)", field) or re.search(r"(\w+)(?:\[\w+\])*\s*$", field)
                            fields.append(name.group(1))
                    out[match.group(1)] = fields
    return out


def constants(headers):
    """Every enumerator, in order."""
    out = []
    for header in headers:
        for item in header.items:
            for declaration in declarations(item.code):
                match = re.match(r"^\s*enum (?:\w+ )?\{(.*)\};\s*$", bare(declaration), re.S)
                if match:
                    out += re.findall(r"^\s*(\w+)", match.group(1).replace(",", "\n"), re.M)
    return out
