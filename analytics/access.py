"""The bearer token of the SQL endpoint, shared through a file that only its owner reads."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from calls.errors import SettingsError

_BYTES: Final = 32


def ensure_token(path: Path) -> str:
    """The token in the file, which is made (mode 0600, whole or not at all) if it is missing. Raises SettingsError."""
    found = read_token(path)
    if found is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails where another process was first: both then use that one's token.
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    except OSError as error:
        raise SettingsError(f"The token file {path} cannot be written: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)
    made = read_token(path)
    if made is None:
        raise SettingsError(f"The token file {path} vanished while it was made. Start again.")
    return made


def read_token(path: Path) -> str | None:
    """The token in the file, None where there is no file. Raises SettingsError for one that others may read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"The token file {path} cannot be read: {error.strerror}.") from error
    with open(descriptor, encoding="utf-8") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
            raise SettingsError(f"The token file {path} can be read by others. Run: chmod 600 {path}")
        token = file.read().strip()
    if not token.isascii() or len(token) < 16:
        raise SettingsError(f"The token file {path} holds no token. Remove it; the worker makes a new one.")
    return token
