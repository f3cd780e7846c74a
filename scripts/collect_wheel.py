"""Copy the wheel that `spacy package` has built into the packages folder itself.

python scripts/collect_wheel.py packages en_snips 0.1.0
"""

import shutil
import sys
from pathlib import Path

packages, name, version = sys.argv[1:]
wheel = f"{name}-{version}-py3-none-any.whl"
shutil.copyfile(Path(packages, f"{name}-{version}", "dist", wheel), Path(packages, wheel))
print(f"Wheel: {Path(packages, wheel)}")
