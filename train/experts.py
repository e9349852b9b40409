"""A mixture of experts: several MLPs in a block, of which each token takes the few that its router scores highest.

Tokens are sorted by expert, so each expert is one matrix product over its own tokens and none is dropped
(arXiv 2401.04088, section 2.1, has the formulas; 2101.03961 the balancing loss).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.shape import Shape

# Weight of the balancing loss (arXiv 2101.03961, section 2.2: enough to balance, too little to disturb).
BALANCE_COEFFICIENT = 0.01


class Experts(nn.Module):
    """SwiGLU MLPs and their router.

    Attributes:
        router: (experts, width).
        mlp_in: Gates, then what they gate, (experts, 2 x feed_forward, width).
        mlp_out: (experts, width, feed_forward).
        balance: The last training pass's balancing loss, unweighted: 1 when all experts are equally busy.
    """

    balance: Tensor | None

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        assert shape.experts is not None
        self.chosen = shape.experts_per_token
        self.router = nn.Parameter(torch.empty(shape.experts, shape.width))
        self.mlp_in = nn.Parameter(torch.empty(shape.experts, shape.mlp_rows, shape.width))
        self.mlp_out = nn.Parameter(torch.empty(shape.experts, shape.width, shape.feed_forward))
        self.balance = None

    def forward(self, y: Tensor) -> Tensor:
        """Args: y (batch, length, width). Returns: as y."""
        places = y.flatten(0, 1)
        with torch.autocast(y.device.type, enabled=False):  # the router stays in float32 (2101.03961, section 2.4)
            scores = F.linear(places.float(), self.router.float())
        best, experts = scores.topk(self.chosen, -1)
        self.balance = balance_loss(scores, experts) if self.training else None
        order = experts.flatten().argsort(stable=True)
        # The numbers of tokens come to the CPU here: on a GPU, it waits for them once a block.
        counts = torch.bincount(experts.flatten(), minlength=len(self.router)).tolist()
        worked = [
            swiglu_mlp(tokens, self.mlp_in[expert], self.mlp_out[expert])
            for expert, tokens in enumerate(torch.split(places.index_select(0, order // self.chosen), counts))
        ]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        by_place = torch.cat(worked).index_select(0, back).view(*experts.shape, -1)
        return (by_place * best.softmax(-1, dtype=torch.float32)[..., None]).sum(1).view(y.shape)


def swiglu_mlp(x: Tensor, mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
    """SwiGLU (arXiv 2002.05202, eq. 6) of tokens (places, width) by one expert's weights."""
    gate, up = F.linear(x, mlp_in).chunk(2, -1)
    return F.linear(F.silu(gate) * up, mlp_out)


def balance_loss(scores: Tensor, experts: Tensor) -> Tensor:
    """Number of experts x sum over them of (share of the choices) x (mean probability): arXiv 2101.03961, eq. 4 to 6.

    Args:
        scores: The router's logits (places, experts).
        experts: The chosen ones (places, chosen).
    """
    count = scores.shape[-1]
    share = F.one_hot(experts.flatten(), count).to(torch.float32).mean(0)
    return count * (share * scores.softmax(-1, dtype=torch.float32).mean(0)).sum()
