# SPDX-License-Identifier: Apache-2.0
"""Random small templates: expressions, statements and whitespace control."""

import random

VARIABLES = {
    "i": 7, "j": -3, "z": 0, "f": 2.5, "g": -0.125, "h": 1e22, "t": True, "n": None, "e": "",
    "s": "Hello, World", "u": "Stra\u00dfe \u0130\u03a3 \U0001f600 x\u03a3.", "q": "it's \"x\"\\\n\ttab\u0000\u0085",
    "w": "  padded\t text\n", "d": "12", "k": "-3.75e2", "m": "<b>&'\"</b>",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "le": [], "mixed": [1, "a", None, 2.0, True],
    "ll": [[1, 2], [3], []],
    "o": {"a": 1, "b": {"c": [1, 2]}, "items": "own", "k": None, "_p": 5}, "oe": {},
    "rows": [{"n": "x", "v": 3, "g": "B"}, {"n": "Y", "v": 1, "g": "a"},
             {"n": "z", "v": 2, "g": "b", "deep": {"q": 9}}],
}
NAMES = list(VARIABLES) + ["undef"]
STRING_METHODS = [
    "strip()", "lstrip()", "rstrip()", "strip('Hd \\n')", "lstrip('x')", "split()", "split('l')",
    "split(',', 1)", "split(None, 1)", "rsplit(' ', 1)", "rsplit(None, 1)", "splitlines()",
    "splitlines(true)", "startswith('He')", "startswith(('x', 'H'))", "endswith('d')", "upper()",
    "endswith('o', 0, 5)", "lower()", "title()", "capitalize()", "swapcase()", "replace('l', 'LL')",
    "replace('l', '', 1)", "replace('', '-')", "find('o')", "find('o', 5)", "rfind('o')",
    "index('l')", "rindex('o', 0, 6)", "count('l')", "count('')", "join(['a', 'b'])", "join(ls)",
    "isdigit()", "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()",
    "isnumeric()", "isdecimal()", "isprintable()", "isascii()", "removeprefix('He')",
    "removesuffix('ld')", "partition(',')", "rpartition('o')", "zfill(16)", "center(20)",
    "center(21, '*')", "ljust(15, '.')", "rjust(15)", "expandtabs(4)", "format(1, 2)", "foo()",
    "startswith(1)", "split('')",
]
DICT_METHODS = ["keys()", "values()", "items()", "get('a')", "get('zz', 4)", "get('b').c",
                "a", "b.c[1]", "zz", "update({})", "pop('a')", "copy()", "k"]
LIST_METHODS = ["count(1)", "index(2)", "append(1)", "copy()", "0", "1", "foo"]
FILTERS = [
    "upper", "lower", "title", "capitalize", "trim", "trim('Hd')", "length", "count", "first",
    "last", "list", "string", "int", "int(5)", "int(base=16)", "float", "float(1.5)", "abs",
    "round", "round(1)", "round(2, 'floor')", "round(1, 'ceil')", "round(-1)", "tojson",
    "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(indent=1, sort_keys=true)",
    "tojson(separators=(',', ':'))", "default('D')", "d('D', true)", "default", "join(', ')",
    "join", "join('-', attribute='n')", "map('upper')|list", "map('int')|list",
    "map(attribute='v')|list", "map(attribute='deep.q', default=0)|list",
    "map('default', 'x')|list", "select|list", "select('odd')|list", "reject('none')|list",
    "select('string')|list", "selectattr('v')|list", "selectattr('v', 'gt', 1)|list",
    "selectattr('n', 'equalto', 'x')|map(attribute='v')|list", "rejectattr('deep')|list",
    "selectattr('deep', 'defined')|list", "sort", "sort(reverse=true)",
    "sort(attribute='v')", "sort(attribute='g,v')", "sort(case_sensitive=true)", "unique|list",
    "unique(attribute='g')|list", "reverse|list", "reverse", "dictsort", "dictsort(by='value')",
    "dictsort(reverse=true)", "items|list", "batch(2)|list", "batch(2, 'x')|list",
    "slice(2)|list", "slice(3, 0)|list", "sum", "sum(attribute='v')", "sum(start=1.5)", "min",
    "max", "min(attribute='v')", "max(case_sensitive=true)", "groupby('g')",
    "groupby('g', case_sensitive=true)|list", "wordcount", "truncate(5)",
    "truncate(8, true, '..', 0)", "center(20)", "format(1)", "format(1, 2)", "replace('l', 'L')",
    "replace('a', 'b', 1)", "indent", "indent(2, true)", "indent('> ', blank=true)", "escape",
    "e", "safe", "attr('a')", "urlencode", "forceescape", "e|upper",
    "nosuch", "length == 3", "map('nosuch')|list", "select('nosuch')|list",
]
TESTS = [
    "defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number",
    "integer", "float", "boolean", "true", "false", "odd", "even", "divisibleby 3",
    "divisibleby(2)", "equalto 7", "eq 7", "ne 7", "gt 1", "lt(3)", "ge 3", "le 2", "in [7, 'a']",
    "in s", "sameas none", "sameas(true)", "callable", "lower", "upper", "filter", "escaped",
    "== 7", "nosuch", "not defined", "not none", "not string", "not in l", "not odd",
]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in",
          "not in", "and", "or"]
LITERALS = ["0", "1", "-1", "2", "3", "10", "1_000", "0x1F", "0b101", "1.5", "0.1", "1e3", "1e-7",
            "1.0", "''", "'a'", '"b\\n"', "'x y'", "'\\u00e9'", "'%s-%d'", "'{} {1}'", "true",
            "false", "none", "True", "None", "[]", "[1, 2, 3]", "['a', 'b']", "(1, 'x')", "(1,)",
            "()", "{}", "{'a': 1}", "{'b': [1, {'c': none}], 1: 2.5}", "range(4)",
            "range(5, 0, -2)", "'a' 'b'", "dict(a=1)", "[[1, 2], [3, 4]]"]
FORMATS = ["'%s'", "'%d'", "'%5.2f|%-6s|'", "'%05d'", "'%x %X %o'", "'%r'", "'%g'", "'%e'",
           "'%(a)s'", "'%%'", "'%+d'", "'%c'", "'%s %s'", "'%.3s'", "'% d'", "'%#x'"]
FORMAT_FIELDS = ["{}", "{0}", "{1!r}", "{:>8}", "{:*^9}", "{:05d}", "{:.2f}", "{:,}", "{:+}",
                 "{:x}", "{:#b}", "{:e}", "{:%}", "{{}}", "{0.a}", "{0[0]}", "{a}", "{a:>{w}}",
                 "{:10.3}", "{:g}", "{!s:<4}", "{:_}", "{:=+6}", "{:.3}"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, items):
        return self.random.choice(items)

    def atom(self):
        kind = self.random.random()
        if kind < 0.55:
            return self.pick(NAMES)
        return self.pick(LITERALS)

    def slice(self):
        parts = [self.pick(["", "", "0", "1", "2", "-1", "-2", "5", "i", "n"]) for _ in range(3)]
        if self.random.random() < 0.6:
            parts = parts[:2]
        elif self.random.random() < 0.8:
            parts[2] = self.pick(["1", "2", "-1", "-2", ""])
        return ":".join(parts)

    def expression(self, depth=3):
        if depth == 0:
            return self.atom()
        r = self.random.random
        kind = self.random.randrange(17)
        inner = lambda: self.expression(depth - 1)
        if kind < 2:
            return self.atom()
        if kind < 5:
            left, right, operator = inner(), inner(), self.pick(BINARY)
            if operator == "**":  # jinja2 compiles a negative constant here without parentheses
                left = self.pick(NAMES)
            text = f"{left} {operator} {right}"
            return f"({text})" if r() < 0.6 else text
        if kind == 5:
            return f"{self.pick(['not ', '-', '+', 'not ', '- '])}{inner()}"
        if kind == 6:
            base = self.pick(["s", "u", "q", "w", "d", "e", f"({inner()})"])
            return f"{base}.{self.pick(STRING_METHODS)}"
        if kind == 7:
            base = self.pick(["o", "oe", "rows[0]", "{'a': 2}"])
            return f"{base}.{self.pick(DICT_METHODS)}"
        if kind == 8:
            return f"{self.pick(['l', 'mixed', 'll', '(1, 2)'])}.{self.pick(LIST_METHODS)}"
        if kind == 9:
            return f"{self.pick(['s', 'u', 'l', 'ls', 'rows', 'range(9)', self.pick(NAMES)])}[{self.slice()}]"
        if kind == 10:
            index = self.pick(["0", "-1", "1", "9", "'a'", "'nope'", "i", inner()])
            return f"{self.pick(NAMES)}[{index}]"
        if kind < 13:
            return f"{self.pick(NAMES) if r() < 0.6 else '(' + inner() + ')'}|{self.pick(FILTERS)}"
        if kind == 13:
            return f"{self.pick(NAMES) if r() < 0.6 else '(' + inner() + ')'} is {self.pick(TESTS)}"
        if kind == 14:
            tail = f" else {inner()}" if r() < 0.7 else ""
            text = f"{inner()} if {inner()}{tail}"
            return f"({text})" if r() < 0.7 else text
        if kind == 15:
            if r() < 0.5:
                args = self.pick([inner(), f"({inner()}, {inner()})", "o", "i", "f", "('a', 1)"])
                return f"{self.pick(FORMATS)} % {args}"
            fields = "".join(self.pick(FORMAT_FIELDS) for _ in range(self.random.randrange(1, 3)))
            args = self.pick(["i, f", "s, u", "o, l", "f, g, a=i, w=5", "j, t", "n", inner()])
            return f"'{fields}'.format({args})"
        return self.pick([f"[{inner()}, {inner()}]", f"({inner()},)", f"{{'k': {inner()}}}",
                          f"{inner()} < {inner()} <= {inner()}", f"ns.a ~ {inner()}",
                          f"{{{self.pick(NAMES)}: 1}}"])

    def tag(self, body):
        left = self.pick(["{%", "{%", "{%-", "{%+"])
        right = self.pick(["%}", "%}", "-%}", "+%}"])
        return f"{left} {body} {right}"

    def output(self, expression):
        return f"{self.pick(['{{', '{{', '{{-', '{{+'])} {expression} {self.pick(['}}', '-}}'])}"

    def space(self):
        return self.pick(["", " ", "\n", "\n  ", "  \n", "\n\n", "text", " text ", "\t", "\r\n",
                          "{# note #}", "{#- note -#}", "\n  {# note +#}\n", "a\n    ", "\u00a0\n"])

    def body(self, depth):
        parts = []
        for _ in range(self.random.randrange(1, 4)):
            parts += [self.space(), self.statement(depth - 1)]
        return "".join(parts) + self.space()

    def statement(self, depth=2):
        if depth <= 0 or self.random.random() < 0.35:
            return self.output(self.expression(2))
        tag, body, simple = self.tag, lambda: self.body(depth), lambda: self.expression(1)
        kind = self.random.randrange(16)
        if kind == 0:
            return (tag(f"if {simple()}") + body() + tag(f"elif {simple()}") + body() +
                    tag("else") + body() + tag("endif"))
        if kind < 3:
            return tag(f"if {self.expression(2)}") + body() + tag("endif")
        if kind < 7:
            source = self.pick(["l", "ls", "s", "o", "range(3)", "le", "rows", "ll", "undef",
                                "[1, 2, 3]", "l|map('string')", "rows|selectattr('v', 'gt', 1)",
                                simple()])
            test = self.pick(["", "", f" if {simple()}", " if x != 2"])
            inside = self.pick([
                "{{ loop.index }}/{{ loop.length }}{{ loop.last }}",
                "{{ loop.previtem }}{{ x }}{{ loop.nextitem }}", "{{ loop.cycle('a', 'b') }}",
                "{{ loop.changed(x) }}{{ loop.revindex }}", "{{ loop.first }}{{ loop.depth }}",
                "{% if loop.index == 2 %}{% break %}{% endif %}{{ x }}",
                "{% if x == 1 %}{% continue %}{% endif %}{{ x }}", "{% set y = x %}{{ y }}",
                "{% set ns.a = loop.index0 %}", "{{ x }}", "{{ y }}{% set y = 1 %}{{ y }}"])
            other = tag("else") + body() if self.random.random() < 0.3 else ""
            return (tag(f"for x in {source}{test}") + inside + body() + other + tag("endfor") +
                    "{{ y }}{{ x }}")
        if kind == 7:
            return tag("for a, b in " + self.pick(["o.items()", "o|dictsort", "[(1, 2)]", "ll",
                                                   "o|items", "rows|groupby('g')"])) + \
                "{{ a }}={{ b }};" + tag("endfor")
        if kind == 8:
            name = self.pick(["y", "ns.a", "ns.c", "s"])
            return tag(f"set {name} = {self.expression(2)}") + self.output(name)
        if kind == 9:
            extra = self.pick(["", "|upper", "|trim|length", "|replace('a', 'b')"])
            return tag(f"set y{extra}") + body() + tag("endset") + self.output("y|string|length")
        if kind == 10:
            return tag(f"set a, b = {self.pick(['1, 2', 'l', '(s, u)', simple()])}") + "{{ a }}{{ b }}"
        if kind == 11:
            return (tag("macro m(p, q=5, r=p)") + "{{ p }}{{ q }}{{ r }}{{ kwargs }}{{ varargs }}" +
                    (body() if self.random.random() < 0.5 else "") + tag("endmacro") +
                    self.output(self.pick(["m(1)", "m()", "m(1, 2, 3, 4)", "m(q=s, p=l)",
                                           "m(1, zz=2)", "m(*l)", "m(**{'p': 3})", "m"])))
        if kind == 12:
            return (tag("macro w()") + "<{{ caller(3) if caller else 'none' }}>" + tag("endmacro") +
                    tag("call(v) w()") + "{{ v }}" + body() + tag("endcall") + "{{ w() }}")
        if kind == 13:
            name = self.pick(["upper", "trim", "replace('e', 'E')", "title", "indent(2)"])
            return tag(f"filter {name}") + body() + tag("endfilter")
        if kind == 14:
            return tag(f"with y = {simple()}, x = y") + "{{ x }}" + body() + tag("endwith")
        return self.pick([
            tag("generation") + body() + tag("endgeneration"),
            "{% raw %} {{ x }} {% endraw %}", "{%- raw -%}\n {% if %}\n{%- endraw +%}",
            tag("for x in [1, [2, [3]]] recursive") +
            "({{ loop(x) if x is iterable else x }}{{ loop.depth }})" + tag("endfor"),
            "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}",
            "{% set j2 = joiner('|') %}{{ j2() }}{{ j2() }}", "{{ raise_exception(s) }}",
            tag("print s, i"),
        ])

    def template(self):
        if self.random.random() < 0.45:
            return "{{ " + self.expression(3) + " }}"
        return ("{% set ns = namespace(a=1) %}" + self.space() + self.statement(3) + self.space() +
                (self.statement(2) if self.random.random() < 0.5 else "") + self.space())
