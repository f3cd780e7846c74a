"""spaCy's training loop with checkpoints, exact resumption and several processes."""

from .checkpoint import CHECKPOINTS, has_checkpoints
from .interval import Interval
from .loop import Preempted
from .ranks import RankLost
from .run import PREEMPTED, TrainSettings, train

__all__ = ["CHECKPOINTS", "PREEMPTED", "Interval", "Preempted", "RankLost", "TrainSettings", "has_checkpoints", "train"]
