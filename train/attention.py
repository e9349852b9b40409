"""Causal attention behind two functions: one chooses the kernel, once a pass; the other is called by every block.

Heads come first in all tensors here, (heads, batch, length, head_dimension): so the queries, keys and values that one
product makes are each contiguous, and a group of query heads lies beside the head of keys it shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

# Up to here the explicit products beat PyTorch's flash kernel on a CPU (one AVX-512 core, 4 heads of 32, forward and
# backward: 256 places 20 ms against 26, 512 places 37 against 49; 1,024 places 143 against 126). They keep all
# probabilities, which is also why they stop here.
LONGEST_EXPLICIT = 512

_SMALLEST_FLEX_HEAD = 16  # flex attention's kernels take no smaller heads (torch/_inductor/kernel/flex)

# None: a place sees all before it. A boolean tensor (batch or 1, 1, length, length) is true where a query sees a key.
Mask: TypeAlias = Tensor | BlockMask | None

_Flex: TypeAlias = Callable[..., Tensor]


def attention_mask(
    tokens: Tensor, documents: Tensor | None, window: int | None, *, head_dimension: int, dropout: float
) -> Mask:
    """What the places of a batch see, in the form that the kernel for it takes.

    ==============================================  =======================================================
    on a CPU, up to LONGEST_EXPLICIT places         boolean: explicit products
    elsewhere, without documents and window         None: the flash kernel of scaled_dot_product_attention
    on a GPU, with them, where gradients are kept   blocks: flex attention (arXiv 2412.05496), compiled
    with them on a CPU, without gradients, or with  boolean: scaled_dot_product_attention, the whole square
    dropout or small heads
    ==============================================  =======================================================

    Flex attention knows no dropout and no heads below 16, and is compiled anew for every length: texts that grow token
    by token, which need no gradients, must not wait for that.

    Args:
        tokens: (batch, length), for its sizes and device.
        documents: The number of each token's document, (batch, length); attention stays within a document.
        window: Places that a place sees, its own included, as Mistral in transformers counts them.
        head_dimension: Of the attention to come.
        dropout: Of its probabilities.
    """
    (batch, length), device = tokens.shape, tokens.device
    window = window if window is not None and window < length else None
    explicit = device.type == "cpu" and length <= LONGEST_EXPLICIT
    if documents is None and window is None and not explicit:
        return None
    visible = visibility(documents, window)
    rows = 1 if documents is None else batch
    flexible = not dropout and head_dimension >= _SMALLEST_FLEX_HEAD and torch.is_grad_enabled()
    if device.type == "cuda" and flexible:
        return create_block_mask(visible, rows, None, length, length, device)
    place = torch.arange(length, device=device)
    row = torch.arange(rows, device=device)[:, None, None]
    return visible(row, row, place[:, None], place).view(rows, 1, length, length)


def visibility(documents: Tensor | None, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The function of (row, head, query's place, key's place) that says whether the query sees the key."""

    def visible(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = key <= query
        if window is not None:
            seen = seen & (key > query - window)
        if documents is not None:
            seen = seen & (documents[row, query] == documents[row, key])
        return seen

    return visible


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Softmax attention.

    Args:
        query: (heads, batch, length, head_dimension).
        key, value: The same, with a divisor of the heads: each serves a group of neighbouring query heads.
        mask: Of `attention_mask`.
        dropout: Share of the probabilities that is dropped.

    Returns:
        As query.
    """
    if isinstance(mask, Tensor) and query.device.type == "cpu" and query.shape[2] <= LONGEST_EXPLICIT:
        return explicit_attention(query, key, value, mask, dropout)
    group = query.shape[0] // key.shape[0]
    half = query.dtype in (torch.float16, torch.bfloat16)
    # scaled_dot_product_attention shares keys only in its flash kernel (GPU, 16 bits, no mask) and its slowest one.
    shared = isinstance(mask, BlockMask) or (mask is None and query.device.type == "cuda" and half)
    if group > 1 and not shared:
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    if isinstance(mask, BlockMask):
        # Within a compiled model the function itself is compiled with it.
        flex = cast(_Flex, flex_attention) if torch.compiler.is_compiling() else _compiled_flex_attention()
        attended = flex(q, k, v, block_mask=mask, enable_gqa=group > 1)
    else:
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, enable_gqa=group > 1 and shared
        )
    return attended.transpose(0, 1)


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float = 0.0) -> Tensor:
    """The same as two batched matrix products with a softmax between them."""
    keys, batch, length, size = key.shape
    group = query.shape[0] // keys
    grouped = query.view(keys, group, batch, length, size).transpose(1, 2).reshape(keys * batch, group * length, size)
    k, v = key.flatten(0, 1), value.flatten(0, 1)
    hidden = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, -math.inf)
    scores = torch.bmm(grouped * (1 / math.sqrt(size)), k.transpose(1, 2))
    # In place, and unseen by autograd, which would copy the scores: a constant added changes no gradient.
    scores.detach().view(keys, batch, group, length, length).add_(hidden)
    probabilities = scores.softmax(-1)
    if dropout:
        probabilities = F.dropout(probabilities, dropout)
    attended = torch.bmm(probabilities, v).view(keys, batch, group, length, size)
    return attended.transpose(1, 2).reshape(query.shape)


@cache
def _compiled_flex_attention() -> _Flex:
    return cast(_Flex, torch.compile(flex_attention, dynamic=False))
