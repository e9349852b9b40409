"""Multiple-choice scoring against lm-evaluation-harness's own `hf` backend: rows per CPU second, and the same answers.

    python bench/eval_speed.py --suites science physical reading          # built-in items
    python bench/eval_speed.py --suites arc_easy mmlu --rows 128          # real rows: set PRIMER_EVAL_DATA
    python bench/eval_speed.py --start MODEL                              # CPU seconds before the first answer

Both score the first rows of the same files with the same random-weights models in turns (A B A B ...), in CPU seconds
of this process; the hf backend at the best of some batch sizes. "scoring" is the backends alone, "whole" with the
building of the prompts. Loading is not counted.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# layers, heads, head dimension, rotary dimension, context, vocabulary
SHAPES = {
    "2m": (4, 4, 32, 16, 256, 4096),
    "5m": (6, 6, 32, 16, 512, 4096),
    "5m-long": (6, 6, 32, 16, 2048, 4096),
    "100m": (6, 12, 64, 32, 2048, 51_200),
}
# Answers a row and no more, after the imports: what a run has to pay before it begins.
START = """
import sys, time
from pathlib import Path
from eval.choice import ask_choice
from eval.stages import load_model
from eval.suites import make_plan
from primer.recipe import Eval
settings = Eval(suites=["science"], limit=1, hub=False)
(chosen,) = make_plan(settings, seed=0).chosen
rows = make_plan(settings, seed=0).rows(chosen)
ask_choice(chosen.suite, (), rows, load_model(settings, Path(sys.argv[1]), "cpu", 1))
print(time.process_time())
"""


def make_model(folder: Path, shape: str) -> int:
    """Write a random-weights model with a tokenizer trained on the built-in items; return its number of parameters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

    from eval.suites import ITEMS
    from primer.sealed import SUFFIX, read_items

    layers, heads, dimension, rotary, context, vocabulary = SHAPES[shape]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    texts = [read_items(path) for path in sorted(ITEMS.glob(f"*{SUFFIX}"))]
    end = "<|endoftext|>"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=4096, special_tokens=[end], initial_alphabet=alphabet)
    )
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


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what came of it."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def requests_of(task: Any, rows: int) -> list[list[Any]]:
    """The harness's requests of a task's first rows, row by row."""
    shots = task.config.num_fewshot or 0
    documents = list(task.eval_docs.select(range(min(rows, len(task.eval_docs)))))
    return [
        task.construct_requests(
            doc=document, ctx=task.fewshot_context(document, num_fewshot=shots), metadata=(task.config.task, number, 1)
        )
        for number, document in enumerate(documents)
    ]


def compare(chosen: Any, task: Any, ours: Any, theirs: dict[int, Any], rows: int, turns: int) -> str:
    """One line of the table: medians over the turns."""
    from eval.rows import read_rows
    from eval.suites import read_examples
    from eval.task import ChoiceTask

    suite = chosen.suite
    asked = read_rows(chosen.path, suite.form, suite.name)[:rows]
    examples = read_examples(chosen)
    seconds: dict[Any, list[float]] = {}
    difference = 0.0
    for _ in range(turns):
        cost, questions = timed(lambda: [*map(ChoiceTask(suite, examples).question, asked)])
        seconds.setdefault("our prompts", []).append(cost)
        cost, found = timed(lambda: ours.ask([question.pairs for question in questions]))  # noqa: B023 - called at once
        seconds.setdefault("ours", []).append(cost)
        values = [value for row in found for value, _ in row.scores]
        cost, requests = timed(lambda: requests_of(task, rows))
        seconds.setdefault("their prompts", []).append(cost)
        assert [question.pairs for question in questions] == [[request.args for request in row] for row in requests]
        flat = [request for row in requests for request in row]
        for size, model in theirs.items():
            cost, expected = timed(lambda: model.loglikelihood(flat, disable_tqdm=True))  # noqa: B023
            seconds.setdefault(size, []).append(cost)
            difference = max(difference, *(abs(a - b) for a, (b, _) in zip(values, expected, strict=True)))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    own, best = medians["ours"], min(medians[size] for size in theirs)
    line = f"{suite.name:16}{len(asked):6}"
    for first, second in ((own, best), (own + medians["our prompts"], best + medians["their prompts"])):
        line += f"{len(asked) / first:8.1f}{len(asked) / second:8.1f}{second / first:8.2f}"
    return f"{line}{difference:12.0e}"


def start(folder: str, turns: int) -> None:
    """Print the CPU seconds of new processes: the whole, and up to the first answer."""
    import resource

    for _ in range(turns):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", START, folder], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"first answer after {float(done.stdout):.2f} CPU seconds, process {whole:.2f}", flush=True)


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
    arguments.add_argument("--start", metavar="MODEL", help="measure the start with this model directory instead")
    options = arguments.parse_args()
    if options.start:
        start(options.start, options.turns)
        return
    import datasets
    import lm_eval
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from eval.model import TorchModel
    from eval.suites import TASKS, make_plan
    from primer.recipe import Eval

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # a line for every row that is cut
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, lm-eval {lm_eval.__version__}"
    )
    plan = make_plan(Eval(suites=options.suites, hub=False), seed=0)
    data = str(plan.data) if plan.data else None
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"data": data})
    tasks = manager.load([chosen.suite.name for chosen in plan.chosen])["tasks"]
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as name:
            parameters = make_model(Path(name), shape)
            ours = TorchModel(name, "cpu")
            theirs = {
                size: HFLM(pretrained=name, device="cpu", batch_size=size, dtype="float32")
                for size in options.batch_size
            }
            print(f"\n{parameters:,} parameters, vocabulary {SHAPES[shape][-1]:,}, context {ours.max_length:,}")
            print(f"{'':22}{'scoring, rows/s':^24}{'whole, rows/s':^24}{'largest':>12}")
            print(
                f"{'suite':16}{'rows':>6}{'ours':>8}{'hf':>8}{'times':>8}{'ours':>8}{'hf':>8}{'times':>8}{'difference':>12}"
            )
            for chosen in plan.chosen:
                task = tasks[chosen.suite.name]
                print(compare(chosen, task, ours, theirs, options.rows, options.turns), flush=True)


if __name__ == "__main__":
    main()
