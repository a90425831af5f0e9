# SPDX-License-Identifier: Apache-2.0
"""The metadata of a GGUF file, read on our own so that the tests need no further package."""
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read(path):
    with open(path, "rb") as file:

        def scalar(code):
            return struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]

        def value(kind):
            if kind == 8:
                return file.read(scalar("Q"))
            if kind == 9:
                item, n = scalar("I"), scalar("Q")
                return [value(item) for _ in range(n)]
            return scalar(SCALARS[kind])

        assert file.read(4) == b"GGUF"
        scalar("I")
        scalar("Q")
        out = {}
        for _ in range(scalar("Q")):
            key = value(8).decode()
            out[key] = value(scalar("I"))
        return out
