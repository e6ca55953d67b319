"""Under which headings the commands stand in `calltally --help`; those that run something come first, under none."""

from typing import Final

ASK: Final = "Look and ask"
SEND_ON: Final = "Give away"
CONNECT: Final = "Connect platforms"
CARE: Final = "Check and mend"
