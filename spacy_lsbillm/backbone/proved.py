"""The families known to work, and in which variants: shipped proofs, and those made in this process.

`proved.json` contains the results of `scripts/prove_families.py` for the default config of every causal language model
in transformers, and for variants of some, per version of transformers. Other variants are proved when they are first
used.
"""

import json
import threading
from functools import cache
from importlib.resources import files
from typing import Any

import transformers

from ..errors import BaseError
from .families import Family
from .proof import Proof, prove
from .variants import variant_of

FILE = "proved.json"
_lock = threading.RLock()
_made: dict[str, Proof] = {}


def minor_version(version: str = transformers.__version__) -> str:
    """The first two numbers of a version, as proofs hold for all its patches."""
    return ".".join(version.split(".")[:2])


@cache
def shipped() -> dict[str, dict[str, dict[str, Any]]]:
    """The shipped proofs by minor version of transformers and variant: `{"family": …}`, or `{"refused": "why"}`."""
    return json.loads(files(__package__).joinpath(FILE).read_text(encoding="utf8"))


def family_of(config: Any, name: str) -> Family:
    """The structure of a config's model, if its mask can be removed.

    config (PretrainedConfig): The config of a causal language model.
    name (str): The base's, for the message.
    RAISES (BaseError): It cannot be removed, or the model cannot be tried.
    """
    variant = variant_of(config)
    known = shipped().get(minor_version(), {}).get(variant)
    if known is None:
        proof = proof_of(config, name)
        family, reason = proof.family, proof.reason
    else:
        family = Family.read(known["family"]) if "family" in known else None
        reason = known.get("refused")
    if family is None:
        raise BaseError(
            f"the causal mask of the base {name!r} ({variant}) cannot be removed with transformers "
            f"{transformers.__version__}. A small random copy of it failed this check: {reason}. "
            f"`python -m spacy lsbillm check-base` prints all measurements, and the page on families in the "
            f"documentation lists those that work."
        )
    return family


def proof_of(config: Any, name: str) -> Proof:
    """The proof of a config, made if this process has not made it yet.

    RAISES (BaseError): A small copy of the config cannot be created.
    """
    variant = variant_of(config)
    with _lock:
        if variant not in _made:
            _made[variant] = prove(config, name)
        return _made[variant]
