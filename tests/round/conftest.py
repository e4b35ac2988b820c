"""Lets the tests of this directory import `round_dsl`, the small language they are written in."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
