"""Paths in the repository."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HELPERS = REPOSITORY / "tests" / "helpers"
# Pipelines that were saved by an earlier version.
SAVED = REPOSITORY / "tests" / "fixtures" / "saved"
