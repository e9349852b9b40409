"""A decoder in plain PyTorch, phi-1.5's by default (arXiv 2309.05463, section 2.1; layout of Hugging Face's Phi).

Its shape says what else it may be: Mistral's (arXiv 2310.06825) or, with experts, Mixtral's (2401.04088). Parameters
are named for what they are; :mod:`train.export` translates them to and from Hugging Face's classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from train.attention import attention_mask
from train.experts import BALANCE_COEFFICIENT, Experts
from train.head_loss import head_loss
from train.layers import Block, make_norm, rotary_tables
from train.shape import Shape

# The paper says only that weights start random; 0.02 is GPT-2's, and initializer_range in Hugging Face's PhiConfig,
# MistralConfig and MixtralConfig.
INITIAL_STANDARD_DEVIATION = 0.02


class Phi(nn.Module):
    """The language model.

    Args:
        shape: Its sizes and options.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.final_norm = make_norm(shape)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=shape.biases)
        cosine, sine = rotary_tables(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def initialize(self, seed: int) -> None:
        """Fill all weights, the same on every device.

        Matrices, embedding and router are normal with deviation 0.02, biases zero, norms one: GPT-2's way without
        its smaller deviation for what is added to the residual stream, which Hugging Face's Phi has not either.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                drawn = torch.empty(parameter.shape).normal_(0, INITIAL_STANDARD_DEVIATION, generator=generator)
                parameter.data.copy_(drawn)
            elif name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """The residual stream after the final norm, (batch, length, width).

        What `model.compile()` compiles: everything but the head.

        Args:
            tokens: Token ids (batch, length).
            documents: The number of each token's document, (batch, length): attention stays within a document. Places
                count on through a row, which changes nothing: rotary attention knows only distances.
        """
        length, dropout = tokens.shape[1], self.shape.dropout if self.training else 0.0
        cosine, sine = cast(Tensor, self.cosine)[:length], cast(Tensor, self.sine)[:length]
        mask = attention_mask(
            tokens, documents, self.shape.window, head_dimension=self.shape.head_dimension, dropout=dropout
        )
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cosine, sine, mask)
        return cast(Tensor, self.final_norm(x))

    def logits(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits (batch, length, vocabulary) of the next token at every place; for small inputs."""
        return cast(Tensor, self.head(self(tokens, documents)))

    def loss(self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Cross-entropy summed over all places, in nats; the logits exist only a chunk of places at a time.

        While a model with experts trains, their balancing loss is added: 0.01 of each block's, for every place.

        Args:
            tokens: Token ids (batch, length).
            targets: The token that follows each, (batch, length).
            documents: As for the forward pass.
        """
        hidden = self(tokens, documents).view(-1, self.shape.width)
        loss = head_loss(hidden, self.head.weight, self.head.bias, targets.reshape(-1))
        for module in self.modules():
            if isinstance(module, Experts) and module.balance is not None:
                loss = loss + BALANCE_COEFFICIENT * targets.numel() * module.balance
                module.balance = None  # and with it the pass's graph
        return loss
