# SPDX-License-Identifier: Apache-2.0
"""Makes the helpers beside the tests importable, whatever pytest's import mode."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
