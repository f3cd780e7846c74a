"""Warning before the training of numbers of steps that do not fit together.

spaCy accepts them, and the result is an untrained or hardly trained model.
"""

import warnings
from typing import Any

# What sets all of them.
REMEDY = "`init-config --steps` sets max_steps, total_steps, warmup_steps and eval_frequency together."


def warn_of_steps(training: dict[str, Any]) -> None:
    """Warn of a training without an evaluation after its first step, or one that ends within its warm-up.

    training (dict): The config's section, interpolated.
    """
    steps = training.get("max_steps") or 0
    frequency = training.get("eval_frequency") or 0
    if 0 < steps < frequency:
        warnings.warn(
            f"training.eval_frequency = {frequency} is more than training.max_steps = {steps}: the only evaluation is "
            f"at step 0, so model-best will be the untrained model. Set eval_frequency to about a sixth of max_steps. "
            f"{REMEDY}",
            stacklevel=3,
        )
    rate = training.get("optimizer", {}).get("learn_rate")
    schedule = rate if isinstance(rate, dict) else {}
    warmup = schedule.get("warmup_steps") or 0
    ends = {
        "training.max_steps": steps,
        "training.optimizer.learn_rate.total_steps": schedule.get("total_steps") or 0,
    }
    for name, end in ends.items():
        # In a single step nothing is learned anyway.
        if 1 < end <= warmup:
            warnings.warn(
                f"training.optimizer.learn_rate.warmup_steps = {warmup} does not end before {name} = {end}: the "
                f"learning rate rises from 0 through the whole training. Set warmup_steps to about a tenth of "
                f"max_steps. {REMEDY}",
                stacklevel=3,
            )
            return
