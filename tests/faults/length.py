"""How long the fault tests run: a bounded sample in `make test`, all of it in `make faults`."""

from __future__ import annotations

import os
from typing import Final

LONG: Final = os.environ.get("CALLTALLY_FAULTS") == "long"
