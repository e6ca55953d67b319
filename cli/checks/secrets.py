"""Whether the secrets are worth the name, and who else can read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from calls.settings import FILE_NAME, file_holds_secret
from cli.check import Finding, Level, Patient

LENGTH_MIN = 16
DIFFERENT_MIN = 6
EXAMPLES = ("secret", "changeme", "password", "example", "test", "whsec_")


def check(patient: Patient) -> Iterator[Finding]:
    """Weak, shared and needless secrets, and the files that hold them."""
    settings = patient.settings
    for sentence in settings.warnings:
        yield Finding(Level.WARNING, sentence, "Change it in calltally.toml or in the environment.")
    for source in settings.sources.values():
        for number, secret in enumerate(source.secrets, 1):
            which = "secret" if len(source.secrets) == 1 else f"secret {number} of {len(source.secrets)}"
            weakness = _weakness(secret)
            if weakness:
                yield Finding(
                    Level.WARNING,
                    f"The {which} of source '{source.name}' {weakness}, so it could be guessed.",
                    f"Make a new one with `calltally sources rotate {source.name} --generate`, and set it there, too.",
                )
        if source.unsigned:
            yield Finding(
                Level.WARNING,
                f"Source '{source.name}' is accepted unsigned: whoever knows its address can make up calls (trust D).",
                "Set a secret at the platform and here, and take its name out of allow_unsigned.",
            )
        if len(source.secrets) > 1:
            yield Finding(
                Level.NOTE,
                f"Source '{source.name}' accepts {len(source.secrets)} secrets, as while one is being changed.",
                f"When the platform signs with the newest: calltally sources rotate {source.name} --finish",
            )
    yield from _files(patient)
    if settings.sources:
        yield Finding(Level.OK, f"{len(settings.sources)} sources: {', '.join(settings.sources)}.")
    else:
        yield Finding(Level.NOTE, "There is no source yet, so every webhook is answered 404.", "calltally sources add")


def _weakness(secret: str) -> str | None:
    if secret != secret.strip():
        return "has blanks around it"
    if any(secret.lower() == example for example in EXAMPLES):
        return "is a word from examples"
    if len(secret) < LENGTH_MIN:
        return f"has only {len(secret)} characters"
    if len(set(secret)) < DIFFERENT_MIN:
        return f"is made of only {len(set(secret))} different characters"
    return None


def _files(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    if file_holds_secret(patient.folder):
        yield from _private(patient.folder / FILE_NAME, "the secrets", Level.WARNING)
    yield from _private(settings.sql_token_path, "the token of the SQL endpoint", Level.WRONG)
    for path in (settings.journal_path, settings.store_path, settings.quarantine_path):
        if _open_to_others(settings.data_dir):
            yield from _private(path, "what callers said", Level.NOTE)


def _private(path: Path, what: str, level: Level) -> Iterator[Finding]:
    if _open_to_others(path):
        yield Finding(level, f"Other accounts of this machine can read {what} in {path}.", f"chmod go= {path}")


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o044)
    except FileNotFoundError:
        return False
