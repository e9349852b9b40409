"""Training speed on a CPU: our model and optimiser beside a bare loop over Hugging Face's Phi, in turns.

    python bench/train_speed.py --rounds 3

Prints tokens per CPU second of each and their ratio. The shape is that of a small experiment: 4 layers, width 128,
context 256, vocabulary 4,096, 16 sequences a step, float32.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

LAYERS, HEADS, HEAD_DIMENSION, ROTARY, CONTEXT, VOCABULARY, SEQUENCES = 4, 4, 32, 16, 256, 4096, 16
WARM_UP, STEPS = 3, 16


def reference_step() -> Callable[[], None]:
    """`PhiForCausalLM` and `torch.optim.AdamW` as a tutorial would put them together."""
    import torch
    from transformers import PhiConfig, PhiForCausalLM

    width = HEADS * HEAD_DIMENSION
    config = PhiConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": ROTARY / HEAD_DIMENSION},
    )
    model = PhiForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, VOCABULARY, (SEQUENCES, CONTEXT))

    def step() -> None:
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def our_step(threads: int) -> Callable[[], None]:
    """The model, the optimiser and the CPU's set-up as the trainer uses them."""
    import torch

    from primer.recipe_train import Train
    from train.cpu import prepare_cpu
    from train.model import Phi, Shape
    from train.optimizer import make_optimizer

    prepare_cpu(threads)
    width = HEADS * HEAD_DIMENSION
    model = Phi(Shape(LAYERS, HEADS, HEAD_DIMENSION, ROTARY, 4 * width, CONTEXT, VOCABULARY)).train()
    model.initialize(0)
    optimizer = make_optimizer(model, Train())
    batch = torch.randint(0, VOCABULARY, (SEQUENCES, CONTEXT + 1))

    def step() -> None:
        (model.loss(batch[:, :-1], batch[:, 1:]) / (SEQUENCES * CONTEXT)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(which: str, threads: int) -> float:
    """Tokens per CPU second of one loop, after its warm-up, in this process."""
    import torch

    torch.set_num_threads(threads)
    step = our_step(threads) if which == "ours" else reference_step()
    for _ in range(WARM_UP):
        step()
    started = time.process_time()
    for _ in range(STEPS):
        step()
    return STEPS * SEQUENCES * CONTEXT / (time.process_time() - started)


def main() -> None:
    """Run the two loops in turns, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each loop is measured (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--loop", choices=["ours", "reference"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        print(measure(arguments.loop, arguments.threads))
        return
    speeds: dict[str, list[float]] = {"ours": [], "reference": []}
    for number in range(arguments.rounds):
        for which, measured in speeds.items():
            command = [sys.executable, __file__, "--loop", which, "--threads", str(arguments.threads)]
            measured.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        ours, reference = speeds["ours"][-1], speeds["reference"][-1]
        print(f"round {number + 1}: ours {ours:,.0f}, Hugging Face {reference:,.0f} tokens per CPU second", flush=True)
    ratios = [ours / reference for ours, reference in zip(*speeds.values(), strict=True)]
    print(f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
