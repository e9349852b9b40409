"""One corpus by many machines: each asks for every n-th unit into a journal of its own.

The journals together are what one machine would have been answered. So the corpus that is made from them is the same,
whatever the number of shards; what they lack, the machine that joins them asks for itself.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from primer.errors import PrimerError
from primer.progress import say
from primer.recipe_synth import Budget
from primer.run import locked
from synth.engine import Units
from synth.units import Unit

# Shards end at their part of the target and a little more: units differ in length, so that some shards would end at
# lower numbers than others.
_MARGIN = 1.02

_FOLDER = re.compile(r"\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/16".

        Raises:
            PrimerError: If it is no such thing.
        """
        match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise PrimerError(
                f"--shard is {text!r}; expected K/N with K from 1 to N, such as 3/16.",
                "In a Slurm array of 1-16: --shard $SLURM_ARRAY_TASK_ID/16",
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.number:05d}-of-{self.count:05d}"

    def part(self, target: int | None) -> int | None:
        """Its part of a target."""
        return None if target is None else -(-round(target * _MARGIN) // self.count)

    def budget(self, budget: Budget) -> Budget:
        """Its part of a budget: all shards together spend no more than the whole."""
        return Budget(
            dollars=None if budget.dollars is None else budget.dollars / self.count,
            tokens=None if budget.tokens is None else max(1, budget.tokens // self.count),
        )

    def units(self, units: Units) -> Units:
        """Its units: number k - 1, and every n-th after it."""
        return _Every(units, self.number - 1, self.count)


@dataclass(frozen=True)
class _Every:
    units: Units
    first: int
    step: int

    def __getitem__(self, index: int) -> Unit:
        return self.units[self.first + index * self.step]


def shard_folder(run: Path, shard: Shard) -> Path:
    """Where a shard keeps its journal and its progress."""
    return run / "shards" / shard.name


def shard_journals(run: Path) -> list[Path]:
    """The journals of all shards of a run folder."""
    folders = sorted((run / "shards").glob("*"))
    journals = [folder / "replies.jsonl" for folder in folders if _FOLDER.fullmatch(folder.name)]
    return [journal for journal in journals if journal.is_file()]


def copy_shards(source: Path, run: Path) -> None:
    """Copy the shards of another machine's run folder into this one; those that are here already are left alone.

    Raises:
        PrimerError: If there are none, or two machines worked on the same one.
    """
    journals = shard_journals(source)
    if not journals:
        raise PrimerError(f"{source} holds no shards.", "Name the run folder of a `primer synth --shard` run.")
    for journal in journals:
        target = run / "shards" / journal.parent.name
        if (target / journal.name).exists():
            if (target / journal.name).stat().st_size != journal.stat().st_size:
                raise PrimerError(
                    f"{journal.parent} and {target} differ: two machines worked on the same shard.",
                    f"Keep the one you trust: remove {target} to take the other.",
                )
            continue
        partial = target.with_name(f".{target.name}.copy")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(journal.parent, partial)
        shutil.rmtree(target, ignore_errors=True)  # a folder without a journal: a shard that never began
        partial.rename(target)


def report_shards(run: Path) -> None:
    """Say how far each shard came.

    Raises:
        PrimerError: If there are none, or a process is working on one.
    """
    journals = shard_journals(run)
    if not journals:
        raise PrimerError(
            f"{run} holds no shards.", "Make them first: primer synth RECIPE --shard 1/2, then 2/2; or leave merge out."
        )
    counts = {journal.parent.name.rpartition("-")[2] for journal in journals}
    if len(counts) > 1:
        say(f"  shards of different divisions ({', '.join(sorted(counts))}): units asked for twice were paid for twice")
    elif missing := int(min(counts)) - len(journals):
        say(f"  [yellow]{missing} of {int(min(counts))} shards are not here: their units are asked for if needed[/]")
    for journal in journals:
        with locked(journal.parent):
            share = _share(journal.parent / "progress.json")
        if share < 1:
            say(f"  [yellow]shard {journal.parent.name} was at {share:.0%}: what it lacks is asked for if needed[/]")
    say(f"  joining {len(journals)} of {max(map(int, counts))} shards")


def _share(path: Path) -> float:
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["share"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return 0.0
