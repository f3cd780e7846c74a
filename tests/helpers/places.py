"""Where things of the repository are."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HELPERS = REPOSITORY / "tests" / "helpers"
# Pipelines that an earlier version has saved.
SAVED = REPOSITORY / "tests" / "fixtures" / "saved"
