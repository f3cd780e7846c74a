"""Print the test results of the unmasked and the causal pipeline side by side.

python scripts/compare.py training
"""

import json
import sys
from pathlib import Path

from spacy.util import load_config
from wasabi import table

from spacy_lsbillm.backbone import plan_of, read_record

training = Path(sys.argv[1])
ROWS = (
    ("slots, precision", "ents_p"),
    ("slots, recall", "ents_r"),
    ("slots, F1", "ents_f"),
    ("intents, accuracy", "cats_micro_f"),
)

results = []
for folder, metrics in (("model-best", "metrics.json"), ("causal/model-best", "metrics-causal.json")):
    config = load_config(training / folder / "config.cfg", interpolate=True)
    plan = plan_of(read_record(training / folder / "transformer"))
    results.append((plan, config["training"]["seed"], json.loads((training / metrics).read_text(encoding="utf8"))))

rows = [(name, *(f"{100 * scores[key]:.2f}" for _, _, scores in results)) for name, key in ROWS]
print(table(rows, header=("test set", *(f'unmask = "{plan.notation}"' for plan, _, _ in results)), divider=True))
for plan, seed, _ in results:
    print(f'unmask = "{plan.notation}", seed {seed}: {plan.words}')
print("One seed each: a difference of a few tenths of a point means little.")
