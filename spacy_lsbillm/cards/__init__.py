"""The model card of a trained pipeline: what is known about it, for readers and for hubs."""

from .writing import CARD, add_evaluation, note_training, write_card

__all__ = ["CARD", "add_evaluation", "note_training", "write_card"]
