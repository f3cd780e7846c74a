"""How the tests load a backbone, and the batches they use."""

import torch

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, load_backbone
from spacy_lsbillm.backbone.families import Family
from spacy_lsbillm.backbone.proved import minor_version, shipped

CPU = torch.device("cpu")
# The proofs by variant for the installed version of transformers, or for the newest one if that is not listed.
PROVED = shipped().get(minor_version(), shipped()[max(shipped(), key=lambda version: int(version.split(".")[0]))])


def family(model_type) -> Family:
    """The proved family of a type's default config.

    RAISES (LookupError): proved.json does not have it, or says that it was refused.
    """
    known = PROVED.get(model_type, {})
    if "family" not in known:
        raise LookupError(
            f"proved.json has no proof of {model_type!r}, but {known.get('refused', 'no entry')}. Run "
            f"`python scripts/prove_families.py {model_type}` before adding it to FAMILIES in tests/helpers/tiny.py."
        )
    return Family.read(known["family"])


def load(
    folder,
    unmask="all",
    attention="auto",
    lora=None,
    scalar_mix=None,
    gradient_checkpointing=False,
    adapter=None,
    **base,
):
    settings = BackboneSettings(
        BaseSettings(str(folder), attention=attention, **base), unmask, lora, scalar_mix, gradient_checkpointing
    )
    return load_backbone(settings, device=CPU, adapter=adapter)


def batch(padded: bool):
    """Three rows of 12 pieces; with padding, the second has 7 and the third 1."""
    ids = torch.randint(2, 300, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 7:] = 0
        mask[2, 1:] = 0
    return ids, mask
