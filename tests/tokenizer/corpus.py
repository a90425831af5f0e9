# SPDX-License-Identifier: Apache-2.0
"""Texts for the tokenizer's tests: every script, emoji, digits, white space, code, special tokens.

All text is made of code points assigned in Unicode 14, the version that the pattern library of
Debian 12 knows. The same seed gives the same texts.
"""
import random
import unicodedata

WORDS = (
    "the of and to in is that it was for on are as with his they at be this have from or had by "
    "not but what all were when we there can an your which their said if do will each about how up "
    "out them then she many some so these would other into has more her two like him see time could "
    "no make than first been its who now people my made over did down only way find use may water "
    "internationalisation don't I'll we've they're he'd it's I'm"
).split()
CONTRACTIONS = ["'s", "'S", "'t", "'RE", "'ve", "'Ll", "'d", "'M", "\u2019s", "'\u017f", "'x", "''s"]
SPACES = list(" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029"
              "\u202f\u205f\u2060\u3000\ufeff")
CODE = ["def ", "f(x)", "{\n", "}\n", "    ", "\t\t", "return", " == ", "!=", "->", "::", "//", "/* ",
        " */", "#include <a.h>\n", "0x1F", "1e-9", "\"", "'", "`", "\\n", "$", "@", "[i]", ";\n", "&&",
        "||", "<<", ">>=", "...", "snake_case", "camelCase", "CONST_1", "<div>", "</p>", "&amp;",
        "http://a.b/c?d=e&f=1", "\r\n", "%s", "~", "^", "lambda x: x**2"]
EMOJI = ["\U0001f600", "\u2764\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
         "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", "\U0001f3f4\U000e0067"
         "\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "\U0001f9d1\U0001f3ff\u200d\U0001f680",
         "\u00a9", "\u2122", "\U0001fae0", "\U0001f6dd"]


def assigned():
    """All code points assigned in Unicode 14 (of a newer or older Python: those it is sure of)."""
    version = tuple(int(x) for x in unicodedata.unidata_version.split("."))
    database = unicodedata if version <= (14, 0, 0) else unicodedata.ucd_3_2_0
    return [c for c in range(0x110000)
            if not 0xD800 <= c < 0xE000 and database.category(chr(c)) != "Cn"]


class Corpus:
    def __init__(self, seed, specials):
        self.random = random.Random(seed)
        self.specials = specials
        self.points = assigned()
        self.public = [c for c in self.points if unicodedata.category(chr(c)) != "Co"]
        self.marks = [c for c in self.public if unicodedata.category(chr(c)) in ("Mn", "Mc", "Me")]
        self.numbers = [c for c in self.public if unicodedata.category(chr(c))[0] == "N"]
        self.blocks = {}
        for c in self.public:
            self.blocks.setdefault(c >> 7, []).append(chr(c))
        self.block_list = list(self.blocks.values())
        self.kinds = [self.english, self.english, self.script, self.script, self.any_points,
                      self.digits, self.white, self.code, self.special, self.emoji, self.combining,
                      self.hangul]

    def english(self):
        r = self.random
        out = []
        for _ in range(r.randint(1, 12)):
            word = r.choice(WORDS)
            out.append(r.choice([word, word, word, word.capitalize(), word.upper()]))
            if r.random() < 0.1:
                out.append(r.choice(CONTRACTIONS))
            out.append(r.choice([" ", " ", " ", " ", "  ", ", ", ". ", "\n", "-", "!? "]))
        return "".join(out)

    def script(self):
        r = self.random
        block = r.choice(self.block_list)
        return "".join("".join(r.choices(block, k=r.randint(1, 6))) + r.choice(["", " ", "\u0301"])
                       for _ in range(r.randint(1, 5)))

    def any_points(self):
        r = self.random
        return "".join(map(chr, r.choices(self.points, k=r.randint(1, 20))))

    def digits(self):
        r = self.random
        return "".join(r.choice([str(r.randrange(10 ** r.randint(1, 12))), chr(r.choice(self.numbers)),
                                 ".", ",", " ", "-", "a", "\u4e00"]) for _ in range(r.randint(1, 10)))

    def white(self):
        r = self.random
        return "".join(r.choice(SPACES) * r.choice([1, 1, 1, 2, 3, 8, 40]) + r.choice(["", "", "a", "!"])
                       for _ in range(r.randint(1, 8)))

    def code(self):
        return "".join(self.random.choices(CODE, k=self.random.randint(1, 15)))

    def special(self):
        r = self.random
        out = []
        for _ in range(r.randint(1, 5)):
            token = r.choice(self.specials)
            cut = r.randint(1, len(token))
            out.append(r.choice([token, token, token[:cut], token[cut:], token + token[:cut],
                                 token.upper(), " " + token, token + " ", token + "\u0338"]))
            out.append(r.choice(["", "", "a", "\n", "user\n", "  ", "\u0301"]))
        return "".join(out)

    def emoji(self):
        return "".join(self.random.choices(EMOJI + [" ", "a", "\u200d", "\ufe0f"],
                                           k=self.random.randint(1, 8)))

    def combining(self):
        r = self.random
        return "".join(r.choice(["a", "e", "\u03c9", "\u0627", "\u0915", "\u1100", "\u00e9", " ", ">"]) +
                       "".join(map(chr, r.choices(self.marks, k=r.randint(0, 6))))
                       for _ in range(r.randint(1, 5)))

    def hangul(self):
        r = self.random
        return "".join(chr(r.choice([r.randint(0x1100, 0x11FF), r.randint(0xAC00, 0xD7A3),
                                     r.randint(0x1161, 0x1175), r.randint(0x11A7, 0x11C2)]))
                       for _ in range(r.randint(1, 10)))

    def text(self):
        parts = 1 if self.random.random() < 0.6 else self.random.randint(2, 4)
        return "".join(self.random.choice(self.kinds)() for _ in range(parts))

    def every_point(self):
        """Texts that together hold every assigned code point that is not for private use."""
        for i in range(0, len(self.public), 12):
            run = [chr(c) for c in self.public[i:i + 12]]
            yield "".join(run[:4]) + " " + "a".join(run[4:8]) + "1" + " ".join(run[8:])

    def texts(self, n):
        out = list(self.every_point())
        out.extend(self.text() for _ in range(n - len(out)))
        return out
