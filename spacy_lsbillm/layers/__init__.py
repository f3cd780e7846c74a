"""The thinc models."""

from .billm_model import ModelSettings, backbone_shim, build_billm_model, fit
from .shim import BackboneSettings

__all__ = ["BackboneSettings", "ModelSettings", "backbone_shim", "build_billm_model", "fit"]
