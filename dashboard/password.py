"""The dashboard's password: one for all who may look, kept as an argon2 hash."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from calls.errors import SettingsError

SHORTEST = 12
LONGEST = 1024


def hashed(password: str) -> str:
    """The hash to put into the settings. Raises SettingsError for a password that is too short, long or no text."""
    if not SHORTEST <= len(password) <= LONGEST or not password.isprintable():
        raise SettingsError(
            f"A password needs {SHORTEST} to {LONGEST} printable characters: everyone who finds the page may try. "
            "Four random words will do."
        )
    return PasswordHasher().hash(_one_form(password))


def fits(password: str, password_hash: str) -> bool:
    """Whether it is the password of that hash; takes a tenth of a second and 64 MiB on purpose."""
    if len(password) > LONGEST:
        return False
    try:
        return PasswordHasher().verify(password_hash, _one_form(password))
    except VerificationError:
        return False


def check_hash(password_hash: str) -> None:
    """Raises SettingsError for what is no hash, such as one that lost its `$` signs in a shell."""
    try:
        extract_parameters(password_hash)
    except InvalidHashError:
        raise SettingsError(
            "dashboard_password_hash is no argon2 hash. Make one with `calltally password`, and put it between single "
            "quotes where a shell or a compose file reads it: they replace what stands after a $."
        ) from None


def _one_form(password: str) -> str:
    # Keyboards of different systems send the same letter in different ways.
    return unicodedata.normalize("NFKC", password)
