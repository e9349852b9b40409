"""Multiple-choice scoring against lm-evaluation-harness's own `hf` backend: rows per CPU second, and the same answers.

    python bench/eval_speed.py --suites arc_easy hellaswag --rows 100     # real rows: set PRIMER_EVAL_DATA
    python bench/eval_speed.py --shape 100m --suites science reading      # built-in items

Both score the same rows of the same random-weights models in turns (A B A B ...), in CPU seconds of this process; the
hf backend at the best of some batch sizes. "scoring" is the backends alone, "whole" with the building of the prompts,
for which the harness left to itself compiles its templates row by row. Loading is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval
import lm_eval.utils
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from eval.model import PrimerLM
from eval.suites import ITEMS, load_tasks, make_plan
from primer.recipe import Eval

# layers, heads, head dimension, rotary dimension, context, vocabulary
SHAPES = {"2m": (4, 4, 32, 16, 256, 4096), "5m": (6, 6, 32, 16, 512, 4096), "100m": (6, 12, 64, 32, 2048, 51_200)}


def make_model(folder: Path, shape: str) -> int:
    """Write a random-weights model with a tokenizer trained on the built-in items; return its number of parameters."""
    layers, heads, dimension, rotary, context, vocabulary = SHAPES[shape]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    texts = [path.read_text(encoding="utf-8") for path in sorted(ITEMS.glob("*.jsonl"))]
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(texts, trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=end, eos_token=end).save_pretrained(folder)
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=vocabulary,
        hidden_size=heads * dimension,
        intermediate_size=4 * heads * dimension,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": rotary / dimension},
        bos_token_id=0,
        eos_token_id=0,
    )
    model = PhiForCausalLM(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def requests_of(task: Any) -> list[Instance]:
    """Every request of a task, built anew as each backend would."""
    return [
        request
        for number, document in enumerate(task.eval_docs)
        for request in task.construct_requests(
            doc=document, ctx=task.fewshot_context(document, num_fewshot=0), metadata=(task.config.task, number, 1)
        )
    ]


def timed(model: Any, requests: list[Instance]) -> tuple[float, list[float]]:
    """CPU seconds, and the log-likelihoods."""
    started = time.process_time()
    found = model.loglikelihood(requests, disable_tqdm=True)
    return time.process_time() - started, [value for value, _ in found]


def building(task: Any) -> tuple[float, float]:
    """CPU seconds to build all prompts: as Primer does, and as the harness does when left to itself."""
    cached = lm_eval.utils.env.from_string
    seconds = []
    for compiler in (cached, cached.__wrapped__):
        lm_eval.utils.env.from_string = compiler
        started = time.process_time()
        requests_of(task)
        seconds.append(time.process_time() - started)
    lm_eval.utils.env.from_string = cached
    return seconds[0], seconds[1]


def main() -> None:
    """Time both backends and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", choices=SHAPES, nargs="+", default=["2m"])
    arguments.add_argument("--suites", nargs="+", default=["pronouns", "physical", "science", "reading", "social"])
    arguments.add_argument("--rows", type=int, default=60)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument(
        "--batch-size", type=int, nargs="+", default=[1, 16], help="of the hf backend; its best counts"
    )
    options = arguments.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, lm-eval {lm_eval.__version__}"
    )
    plan = make_plan(Eval(suites=options.suites, limit=options.rows), seed=0)
    tasks = load_tasks(plan)
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as name:
            parameters = make_model(Path(name), shape)
            ours = PrimerLM(name, device="cpu")
            theirs = {
                size: HFLM(pretrained=name, device="cpu", batch_size=size, dtype="float32")
                for size in options.batch_size
            }
            print(f"\n{parameters:,} parameters, vocabulary {SHAPES[shape][-1]:,}, context {ours.max_length:,}")
            print(f"{'':22}{'scoring, rows/s':^24}{'whole, rows/s':^24}{'largest':>12}")
            print(
                f"{'suite':16}{'rows':>6}{'ours':>8}{'hf':>8}{'times':>8}{'ours':>8}{'hf':>8}{'times':>8}{'difference':>12}"
            )
            for suite in (suite.name for suite, _ in plan.chosen):
                compare(suite, tasks[suite], ours, theirs, options.turns)


def compare(suite: str, task: Any, ours: PrimerLM, theirs: dict[int, HFLM], turns: int) -> None:
    """One line of the table: medians over the turns."""
    requests = requests_of(task)
    rows = len(task.eval_docs)
    mine: list[float] = []
    other: dict[int, list[float]] = {size: [] for size in theirs}
    difference = 0.0
    for _ in range(turns):
        seconds, values = timed(ours, requests)
        mine.append(seconds)
        for size, model in theirs.items():
            seconds, expected = timed(model, requests)
            other[size].append(seconds)
            difference = max(difference, *(abs(a - b) for a, b in zip(values, expected, strict=True)))
    own, best = statistics.median(mine), min(statistics.median(seconds) for seconds in other.values())
    my_prompts, their_prompts = building(task)
    line = f"{suite:16}{rows:6}"
    for first, second in ((own, best), (own + my_prompts, best + their_prompts)):
        line += f"{rows / first:8.1f}{rows / second:8.1f}{second / first:8.2f}"
    print(f"{line}{difference:12.0e}", flush=True)


if __name__ == "__main__":
    main()
