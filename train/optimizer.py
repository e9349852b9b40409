"""AdamW as phi-1.5 was trained with (arXiv 2309.05463, section 2.3), and the learning rate over the steps."""

from __future__ import annotations

import math

import torch
from torch import nn

from primer.recipe_train import Train


def make_optimizer(model: nn.Module, train: Train) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices (the embedding included) and none on biases and norms."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        eps=train.epsilon,
        fused=True,  # one kernel over all parameters, on CPUs as on GPUs
    )


def learning_rate(train: Train, step: int, steps: int) -> float:
    """The rate of a step: linear from near 0 over the warm-up, then as the schedule says.

    `constant` stays (phi-1.5: arXiv 2309.05463, section 2.3); `cosine` (arXiv 2203.15556, appendix B) and `linear`
    (phi-1: arXiv 2306.11644, section 2.3) fall to `final_share` of the rate at the last step; `wsd` stays and falls
    linearly in the last `decay_share` of the steps (arXiv 2405.18392).

    Args:
        train: The recipe's section.
        step: Counted from 0.
        steps: How many there will be.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    begin = train.warmup_steps
    if train.schedule == "wsd":
        begin = max(begin, steps - round(train.decay_share * steps))
    done = min(max(step - begin, 0) / max(1, steps - 1 - begin), 1.0)
    if train.schedule == "constant":
        left = 1.0
    elif train.schedule == "cosine":
        left = (1 + math.cos(math.pi * done)) / 2
    else:
        left = 1 - done
    return train.learning_rate * (train.final_share + (1 - train.final_share) * left)
