"""Secrets that stand in files of their own, as container engines and service managers hand them over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from calls.errors import SettingsError

SUFFIX = "_FILE"


def read_in(environ: Mapping[str, str], is_secret: Callable[[str], bool]) -> dict[str, str]:
    """The environment with the content of a file for every secret `X` that is given as `X_FILE`. Raises SettingsError.

    Messages name the variable, never its value: who mixes the two up has put the secret itself there.
    """
    found = dict(environ)
    for variable, path in environ.items():
        name = variable.removesuffix(SUFFIX)
        if name == variable or not is_secret(name):
            continue
        del found[variable]
        if not path:
            continue
        if environ.get(name):
            raise SettingsError(f"Both {name} and {variable} are set. Keep one of them.")
        found[name] = _content(variable, Path(path))
    return found


def _content(variable: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        reason = error.strerror or "no such path"
        raise SettingsError(f"The file that {variable} names cannot be read: {reason}.") from None
    except ValueError:
        raise SettingsError(f"The file that {variable} names holds no text.") from None
    if not text:
        raise SettingsError(f"The file that {variable} names is empty. Write the secret into it.")
    return text
