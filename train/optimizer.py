"""AdamW as phi-1.5 was trained with (arXiv 2309.05463, section 2.3), and the learning rate over the steps."""

from __future__ import annotations

import math

import torch
from torch import nn

from primer.recipe_train import Train

# Where a cosine schedule ends, as a share of the peak (arXiv 2203.15556, appendix B: to 10%). The paper itself
# trains at a constant rate.
_COSINE_END = 0.1


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
    """The rate of a step: linear from near 0 over the warm-up, then constant, or a cosine down to 10%.

    Args:
        train: The recipe's section.
        step: Counted from 0.
        steps: How many there will be.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    done = (step - train.warmup_steps) / max(1, steps - 1 - train.warmup_steps)
    return train.learning_rate * (_COSINE_END + (1 - _COSINE_END) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)
