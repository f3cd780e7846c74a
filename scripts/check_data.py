"""Check that the data for a task of project.yml exist, before it begins.

python scripts/check_data.py DATA SET
"""

import sys
from pathlib import Path

EXAMPLE = "python -m spacy project run task . --vars.data /my/data --vars.set wnut17 --vars.config sequence_labeler"


def main() -> None:
    """Exit with a message if the folder of the data set is missing."""
    data, name = sys.argv[1:]
    if not data or not name:
        sys.exit(f"Name the folder of data sets and one of them, for example:\n{EXAMPLE}")
    if not (Path(data) / name).is_dir():
        sys.exit(f"There is no folder {Path(data) / name}. It should contain train, dev and test as .iob or .jsonl.")


if __name__ == "__main__":
    main()
