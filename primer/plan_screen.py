"""The screen of `primer plan`: its JSON object as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from primer.gpus import known_gpus

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_UNKNOWN = "?"


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan (`primer.plan_cli.make_plan`) to standard output."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(plan['recipe'])}[/]: what it would take. Nothing is started, nothing is spent.")
    if plan["generation"]:
        _generation(console, plan["generation"], plan["assumptions"])
    if plan["further"]:
        _further(console, plan["further"])
    if plan["budget"]:
        console.print(f"\n[bold]{escape(plan['budget'])}[/]")
    _training(console, plan["training"], plan["assumptions"])
    _evaluation(console, plan["evaluation"], plan)
    _disk(console, plan["disk"])
    _totals(console, plan["totals"], plan)


def duration(seconds: float | None) -> str:
    """A time for people: "50 s", "4.2 min", "3.1 h", "84 days"."""
    if seconds is None:
        return _UNKNOWN
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{_short(seconds / unit)} {name}"
    return f"{seconds:.0f} s"


def amount(number: float) -> str:
    """A count: in full up to a hundred million, then in billions."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e8, "million")):
        if number >= size:
            return f"{number / (1e6 if name == 'million' else size):,.1f} {name}"
    return f"{number:,.0f}"


def dollars(number: float | None) -> str:
    """An amount of money; cents where they matter."""
    if number is None:
        return _UNKNOWN
    return f"${number:,.2f}" if number < 1000 else f"${number:,.0f}"


def size(number: float) -> str:
    """Bytes in powers of ten."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number / 1e3:,.1f} kB"


def _hours(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.2f}" if number < 10 else f"{number:,.0f}"


def _short(number: float) -> str:
    return f"{number:,.1f}" if number < 20 else f"{number:,.0f}"


def _rows() -> Table:
    """What, how much, and on what grounds: the grounds take the lines they need."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, width=14)
    table.add_column(justify="right", no_wrap=True, min_width=14)
    table.add_column(style="dim", overflow="fold")
    return table


def _columns(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(names):
        last = place == len(names) - 1
        table.add_column(name, justify="right" if place and not last else "left", no_wrap=not last)
    return table


def _heading(console: Console, title: str, about: str) -> None:
    console.print(f"\n[bold]{title}[/] [dim]{escape(about)}[/]")


def _generation(console: Console, found: Mapping[str, Any], assumed: Mapping[str, Any]) -> None:
    work, origin = found["work"], found["work"]["origin"]
    _heading(console, "Generation", f"{found['kind']} teacher {found['teacher']}")
    table = _rows()
    grounds = origin["accepted"]
    if grounds == "assumed":
        grounds = f"assumed: plan.accepted {assumed['accepted']:g} of replies; a book needs all of its own"
    table.add_row("units to ask", amount(work["units"]), f"{work['accepted']:.0%} become documents ({grounds})")
    a_unit = work["requests"] / work["units"]
    table.add_row("requests", amount(work["requests"]), f"{a_unit:.2f} a unit: steps of books, retries")
    table.add_row("tokens in", amount(work["prompt_tokens"]), _prompt_grounds(found, assumed))
    table.add_row("tokens out", amount(work["completion_tokens"]), _reply_grounds(found, assumed))
    each = work["tokens"] / work["documents"]
    table.add_row("documents", amount(work["documents"]), f"{amount(work['tokens'])} tokens, {each:,.0f} each")
    if found["kind"] == "openai":
        table.add_row("dollars", dollars(found["dollars"]), _price_grounds(found))
    if "bounds" in found:
        first, *others = found["bounds"]
        table.add_row("time", duration(first["seconds"]), f"the bottleneck is {escape(first['name'])}")
        for bound in others:
            table.add_row("", duration(bound["seconds"]), f"if only {escape(bound['name'])} counted")
    console.print(table)
    if "gpus" in found:
        _gpus(console, found, assumed)


def _further(console: Console, stages: Sequence[Mapping[str, Any]]) -> None:
    _heading(console, "Besides", "scores for the quality filters, and what is written for the code corpus")
    table = _columns("stage", "requests", "tokens in", "tokens out", "time", "dollars")
    for found in stages:
        work = found["work"]
        table.add_row(
            found["stage"],
            amount(work["requests"]),
            amount(work["prompt_tokens"]),
            amount(work["completion_tokens"]),
            duration(found["seconds"]),
            "-" if found["kind"] == "embedded" else dollars(found["dollars"]),
        )
    console.print(table)
    teachers = "; ".join(f"{found['stage']} by {found['teacher']}" for found in stages)
    console.print(f"[dim]{escape(teachers)}.[/]")


def _prompt_grounds(found: Mapping[str, Any], assumed: Mapping[str, Any]) -> str:
    work = found["work"]
    each = f"{work['prompt_tokens'] / work['requests']:,.0f} a request"
    if work["origin"]["prompt_tokens"] != "from the sample":
        return f"{each} ({work['origin']['prompt_tokens']})"
    text = f"{each}: 500 units of the stream, {assumed['characters_per_token']:g} characters a token"
    if work["passages"]:
        text += f"; {work['passages']:.0%} with a passage, taken as {found['snippet_words']} words"
    return text


def _reply_grounds(found: Mapping[str, Any], assumed: Mapping[str, Any]) -> str:
    work = found["work"]
    each = f"{work['completion_tokens'] / work['requests']:,.0f} a request"
    if work["origin"]["completion_tokens"] != "assumed":
        return f"{each} ({work['origin']['completion_tokens']})"
    return (
        f"{each} (assumed: the words asked for x plan.tokens_per_word {assumed['tokens_per_word']:g}, "
        f"at most {found['max_tokens']:,})"
    )


def _price_grounds(found: Mapping[str, Any]) -> str:
    if found["dollars"] is None:
        return "the recipe has no prices: synth.teacher.price_input, price_output"
    paid_in, paid_out = (0.0 if price is None else price for price in found["prices"])
    text = f"${paid_in:g} in, ${paid_out:g} out a million tokens"
    if found["cost"]["unpriced"]:
        text += f" ({found['cost']['unpriced'][0]} is not given: counted as 0)"
    return text + (", half of it by the Batch API" if found["cost"]["discount"] < 1 else "")


def _gpus(console: Console, found: Mapping[str, Any], assumed: Mapping[str, Any]) -> None:
    model = found["size"]
    console.print()
    table = _columns("GPU", "GPUs", "tokens/s", "time", "GPU-hours", "$/hour", "dollars", "bound by")
    for row in found["gpus"]:
        title, price = known_gpus()[row["gpu"]].title, f"{assumed['price_per_gpu_hour'][row['gpu']]:.2f}"
        style = "bold" if row["gpu"] == found["gpu"] else ""
        if row["fits"] is None:
            table.add_row(title, "8 too few", "", "", "", price, "", "memory", style=style)
            continue
        table.add_row(
            title,
            str(row["gpus"]),
            f"{row['tokens_per_second']:,.0f}",
            duration(row["seconds"]),
            _hours(row["gpu_hours"]),
            price,
            dollars(row["dollars"]),
            row["bound"],
            style=style,
        )
    console.print(table)
    console.print(
        f"[dim]Size, by {model['origin']}: {model['parameters'] / 1e9:.3g} billion parameters, "
        f"{model['active'] / 1e9:.3g} at work on a token, {assumed['teacher_bits']} bits each. Assumed, not measured: "
        f"writing at bandwidth / active weights x plan.writing_batch {assumed['writing_batch']:g} (or the replies in "
        "flight on one copy, if fewer), reading at plan.reading_utilisation "
        f"{assumed['reading_utilisation']:.0%} of the peak with 2 operations for each active parameter. A yardstick: "
        "Cosmopedia's 25 billion tokens of Mixtral 8x7B in over 10,000 H100 hours (2024) are at most 700 tokens/s on "
        "an H100, a writing_batch of 5. A model fits where 1.2 x its weights are at most 0.9 of the memory.[/]"
    )


def _training(console: Console, found: Mapping[str, Any], assumed: Mapping[str, Any]) -> None:
    device = found["device"]
    _heading(console, "Training", f"{amount(found['parameters'])} parameters on {device['title']}")
    table = _columns("variant", "tokens", "tokens/s", "time", "GPU-hours", "dollars", "each source seen")
    for variant in found["variants"]:
        table.add_row(
            escape(variant["name"]),
            amount(variant["tokens"]),
            f"{variant['tokens_per_second']:,.0f}",
            duration(variant["seconds"]),
            _hours(variant["gpu_hours"]),
            "-" if variant["dollars"] is None else dollars(variant["dollars"]),
            ", ".join(f"{source} {times:.2g} x" for source, times in variant["epochs"].items()),
        )
    console.print(table)
    if found["variants"][0]["origin"] != "assumed":
        grounds = "tokens/s measured here, by a finished model of this size"
    elif device["gpu"]:
        peak = known_gpus()[device["gpu"]]
        grounds = (
            f"assumed: plan.training_utilisation {device['utilisation']:.0%} of {peak.title}'s peak "
            f"({peak.tflops:g} TFLOPS in 16 bits, {peak.tflops_fp32:g} in 32), plan.training_gpus {device['count']}, "
            f"${device['price']:.2f} an hour"
        )
    else:
        grounds = f"assumed: plan.cpu_gflops {assumed['cpu_gflops']:g} GFLOP/s a core"
    flops = found["flops_per_token"] / 1e9
    console.print(f"[dim]{flops:.4g} GFLOP a token, attention over the full square; {escape(grounds)}.[/]")


def _evaluation(console: Console, found: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    _heading(console, "Evaluation", f"{found['models']} models on {plan['training']['device']['title']}")
    table = _rows()
    suites = ", ".join(f"{part['name']} {part['rows']:,}" for part in found["asked"] if part["rows"] is not None)
    table.add_row("rows a model", amount(found["rows"]), escape(suites))
    held_out = sum(part["tokens"] for part in found["asked"] if part["rows"] is None)
    table.add_row("tokens a model", amount(found["tokens"]), f"{amount(held_out)} of them held-out text")
    grounds = f"a start of {found['start']:g} s, then at plan.cpu_gflops {plan['assumptions']['cpu_gflops']:g} a core"
    if found["dollars"] is not None:
        share = plan["assumptions"]["evaluation_utilisation"]
        grounds = f"{dollars(found['dollars'])}, at plan.evaluation_utilisation {share:.0%} of the peak"
    table.add_row("time", duration(found["seconds"]), grounds)
    if found["without_data"]:
        table.add_row("left out", str(len(found["without_data"])), f"no data here: {', '.join(found['without_data'])}")
    console.print(table)


def _disk(console: Console, found: Mapping[str, int]) -> None:
    _heading(console, "Disk", f"{size(sum(found.values()))} at most, below the run folder")
    console.print("[dim]" + ", ".join(f"{name} {size(number)}" for name, number in found.items()) + "[/]")


def _totals(console: Console, found: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    _heading(console, "Together", "one stage after another")
    parts = [duration(found["seconds"]), dollars(found["dollars"])]
    parts += [f"{_hours(found['gpu_hours'])} GPU-hours"] * bool(found["gpu_hours"])
    parts += [f"{_hours(found['core_hours'])} core-hours"] * bool(found["core_hours"])
    console.print(f"[bold]{', '.join([*parts, size(found['disk_bytes']) + ' of disk'])}[/]")
    for missing in found["without"]:
        console.print(f"[yellow]without {escape(missing)}[/]")
    for note in plan["notes"]:
        console.print(f"[dim]{escape(note)}[/]")
