"""What loading a pipeline imports: nothing that takes seconds and is not used."""

import json
import subprocess
import sys

import pytest
from pipelines import build, examples

LOAD = """
import json, sys
import spacy
nlp = spacy.load(sys.argv[1])
nlp("play some jazz")
print(json.dumps([name for name in ("peft", "bitsandbytes") if name in sys.modules]))
"""


@pytest.mark.slow
def test_a_pipeline_without_adapter_is_loaded_without_peft(make_base, tmp_path):
    nlp = build(make_base(), ["textcat"], lora=None)
    data = examples(nlp)
    nlp.initialize(lambda: data)
    nlp.to_disk(tmp_path / "pipeline")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "pipeline")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
