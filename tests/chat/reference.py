# SPDX-License-Identifier: Apache-2.0
"""The reference: Python's jinja2, set up as transformers sets it up for chat templates."""

import copy
import datetime
import json
import subprocess

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %}: marks an answer's text; renders it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


class Dict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        names = dict(*args, **kwargs)
        for name in names:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError("underscore")


class Raised(jinja2.exceptions.TemplateError):
    """What raise_exception raises; its message must arrive word for word."""


def environment():
    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    env.globals["dict"] = Dict()
    env.globals["namespace"] = Namespace
    return env


ENV = environment()


def complete(request, tokens=None):
    """The variables that a request gives, as transformers passes them."""
    return {"tools": None, "documents": None, "add_generation_prompt": True, **(tokens or {}),
            **request}


def expect(source, variables):
    """{"text": ...}, {"raised": ...} or {"error": ...} as jinja2 has it."""
    try:
        # A copy: indent changes a list that it is given by mistake.
        text = ENV.from_string(source).render(**copy.deepcopy(variables))
        text.encode("utf-8")
        return {"text": text}
    except Raised as raised:
        return {"raised": str(raised)}
    except Exception as error:  # whatever Python raises is an error here too
        return {"error": f"{type(error).__name__}: {error}"}


def render(lockstep, path, requests):
    """What lockstep render answers to each request."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run([lockstep, "render", str(path), "--jsonl"], input=lines.encode(),
                          capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr.decode(errors="replace"))
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert len(answers) == len(requests)
    return answers


def same(expected, got):
    if "raised" in expected:
        return got == {"error": expected["raised"]}
    if "error" in expected:
        return "error" in got
    return got == expected
