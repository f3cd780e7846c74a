"""The thinc models."""

from .billm_model import ModelSettings, backbone_shim, build_billm_model, fit
from .shim import ShimSettings

__all__ = ["ModelSettings", "ShimSettings", "backbone_shim", "build_billm_model", "fit"]
