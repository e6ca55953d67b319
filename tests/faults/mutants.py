"""Mutation testing of the signatures: every small change of `calls/signing.py` must make a test fail.

`python -m tests.faults.mutants` runs `tests/test_signing.py` once a mutant, in a copy of the sources, about 200 times.
The tool that makes the mutants is installed into an environment of its own, `.venv-mutants`: nothing else needs it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
TOOL: Final = "cosmic-ray==8.7.0"
ENVIRONMENT: Final = ROOT / ".venv-mutants"
MUTATED: Final = "calls/signing.py"
TESTS: Final = "test_signing.py"
CONFIGURATION: Final = """
[cosmic-ray]
module-path = "{module}"
timeout = 120.0
excluded-modules = []
test-command = "{python} -m pytest -q -x --rootdir=. -p no:cacheprovider -c /dev/null {tests}"
[cosmic-ray.distributor]
name = "local"
"""
EQUIVALENT: Final = {
    r"^\+\s+signed: tuple\[Part .+ bytes, \.\.\.\]": "an annotation, which is never evaluated",
    r"^\+.*body: bytes, /, now_s": "callers who write the name of a parameter may go on doing so",
    r"^\+.*name < name\.lower\(\)": "a capital letter sorts before its small one, so unequal is less",
    r"^\+.*encoding (==|>=) Encoding\.HEX": "of the two members, HEX is the larger text",
    r"^\+.*trust != proved": "members of one enum are equal where they are identical",
    r"^[-+]\s*@lru_cache\(": "how many keyed MACs are kept changes no answer",
}
"""What a change looks like that no test can tell from the original, and why."""


def main() -> None:
    """Exit with 1 where a mutant survives."""
    if not (ENVIRONMENT / "bin" / "cosmic-ray").exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", TOOL], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "calls", folder / "calls", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests" / TESTS, folder)
        text = CONFIGURATION.format(module=MUTATED, python=sys.executable, tests=TESTS)
        (folder / "mutants.toml").write_text(text)
        for step in (["init"], ["baseline"], ["exec"]):
            session = [] if step == ["baseline"] else ["mutants.sqlite"]
            _cosmic_ray(folder, *step, "mutants.toml", *session)
        survivors, made = _survivors(_cosmic_ray(folder, "dump", "mutants.sqlite"))
    for change in survivors:
        print(change, file=sys.stderr)
    print(json.dumps({"mutants": made, "survivors": len(survivors), "equivalent": len(EQUIVALENT)}))
    raise SystemExit(1 if survivors or not made else 0)


def _cosmic_ray(folder: Path, *words: str) -> str:
    program = ENVIRONMENT / "bin" / "cosmic-ray"
    done = subprocess.run([program, *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _survivors(dump: str) -> tuple[list[str], int]:
    """The changes that no test noticed, and how many were made."""
    survivors, made = [], 0
    for line in dump.splitlines():
        _, result = json.loads(line)
        if result is None:
            raise SystemExit("A mutant was not tested; run it again.")
        made += 1
        if result["test_outcome"] != "survived":
            continue
        changed = [
            text for text in result["diff"].splitlines() if text[:1] in "+-" and not text.startswith(("+++", "---"))
        ]
        if not any(re.search(pattern, text) for pattern in EQUIVALENT for text in changed):
            survivors.append("\n".join(changed))
    return survivors, made


if __name__ == "__main__":
    main()
