"""Units per CPU second of the prompt stream, prompts rendered: without passages, with random and with relevant ones.

    python bench/prompt_speed.py                                # passages of Wikipedia's sample
    python bench/prompt_speed.py --passages 100000              # as many made from its words

One thread, one process; the first epoch of Primer's own topics, in which each topic looks its passages up.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from primer.documents import read_documents
from primer.recipe import Prompts, Recipe
from primer.run import RunFolder
from prompts.passages import Snippet
from prompts.snippets import cut_snippets
from prompts.stream import PromptStream
from synth.corpora import filtering
from synth.filtered import complete_corpus


def passages(count: int | None) -> list[Snippet]:
    """Passages of Wikipedia's sample; more of them are mixed from the words of two."""
    recipe = Recipe(name="speed")
    with tempfile.TemporaryDirectory() as folder:
        with RunFolder.opened(Path(folder) / "run", recipe) as run:
            complete_corpus(filtering(recipe, run), "web", ())
        found = cut_snippets(read_documents(run.folder("corpus/web"), "train", ["id", "text"]), 60, 0)
    generator = random.Random(0)
    while count and len(found) < count:
        one, other = (generator.choice(found).text.split() for _ in range(2))
        mixed = generator.sample(one, len(one) // 2) + generator.sample(other, len(other) // 2)
        found.append(Snippet(f"mixed-{len(found)}", " ".join(mixed)))
    return found[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, metavar="N", help="how many; by default those there are")
    pool = passages(parser.parse_args().passages)
    for label, settings in (
        ("no passages", {"snippet_share": 0.0}),
        ("random passages in half", {"snippet_share": 0.5}),
        ("relevant passages in half", {"snippet_share": 0.5, "snippet_choice": "relevant"}),
    ):
        clock = time.process_time()
        stream = PromptStream(Recipe(name="speed", prompts=Prompts(**settings)), pool)
        ready = time.process_time() - clock
        clock = time.process_time()
        for index in range(len(stream.topics)):
            stream[index].messages()
        rate = len(stream.topics) / (time.process_time() - clock)
        print(f"{label:26s} {len(pool):8,d} passages  ready after {ready:4.1f} s  {rate:8,.0f} units per CPU second")


if __name__ == "__main__":
    main()
