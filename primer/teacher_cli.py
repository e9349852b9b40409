"""`primer teacher`: serve a model with vLLM, see the presets, ask a recipe's teacher something."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from primer.errors import PrimerError

if TYPE_CHECKING:
    from primer.recipe_synth import VllmTeacher
    from synth.journal import Reply
    from synth.vllm_metrics import ServerLoad
    from synth.vllm_server import VllmServer

_LIVE_SECONDS = 5.0  # between two live lines; where nobody watches, a log need not grow as fast
_LOG_SECONDS = 60.0
_WATCH_SECONDS = 0.5

app = typer.Typer(
    help="The teacher: the model that writes the textbooks.\n\n"
    "A recipe names it in synth.teacher: llama.cpp inside Primer (embedded), any OpenAI-compatible address (openai), "
    "or vLLM on this machine's GPU (vllm), which Primer starts for the run and stops after it. Loading a large model "
    "takes minutes: `serve` keeps one running for many runs, on this machine or for others, and `ask` tries a "
    "recipe's teacher before a corpus depends on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def serve(
    model: Annotated[
        str, typer.Option("--model", metavar="PRESET|HUB|DIR", help="A preset, a name on the hub, or a folder.")
    ],
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port to listen on.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines ask, without a key.")
    ] = "127.0.0.1",
    environment: Annotated[
        Path | None,
        typer.Option("--environment", metavar="VENV", help="Environment with vLLM; else .venv-vllm, else Primer's."),
    ] = None,
    startup: Annotated[
        int, typer.Option("--startup-seconds", min=10, help="How long it may take to answer; loading counts.")
    ] = 900,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENT...]", help="Further arguments of `vllm serve`.")
    ] = None,
) -> None:
    """Serve a model with vLLM until Ctrl-C.

    Presets bring their flags and, where it matters, a chat template; what follows `--` wins over them:

        primer teacher serve --model mixtral-8x7b-instruct -- -tp 4

    Prints what to write into a recipe, then a line every few seconds: requests, and tokens a second.
    """
    from primer.progress import say
    from primer.recipe_synth import VllmTeacher

    teacher = VllmTeacher(
        kind="vllm",
        model=model,
        environment=str(environment) if environment else None,
        arguments=arguments or [],
        startup_seconds=startup,
    )
    try:
        asyncio.run(_serve(teacher, host, port))
    except KeyboardInterrupt:
        say("Stopped; nothing of it is left running.")


@app.command()
def presets() -> None:
    """List the models that Primer knows how to serve."""
    from rich.table import Table
    from rich.text import Text

    from primer.progress import printer
    from synth.presets import load_presets

    for name, preset in load_presets().items():
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        size = f"{preset.parameters:g}B parameters"
        if preset.active_parameters < preset.parameters:
            size += f", {preset.active_parameters:g}B at work on each token"
        roles = "sent as it is" if preset.system_prompt == "send" else "put before the first question"
        flags = " ".join(_flag(flag, value) for flag, value in preset.flags.items())
        table.add_row("  model", Text(preset.model))
        table.add_row("  size", size)
        table.add_row("  system prompt", roles)
        table.add_row("  chat template", f"Primer's own ({preset.template})" if preset.template else "the model's")
        table.add_row("  flags", Text(flags))
        table.add_row("  licence", Text(preset.licence))
        printer.print(Text(name, style="bold") + Text(f"  {preset.description}", style="not bold"))
        printer.print(table)
        printer.print()
    printer.print("In a recipe: synth.teacher: {kind: vllm, model: NAME}. To keep one running: primer teacher serve.")


@app.command()
def ask(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, for its synth.teacher and sampling.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotation marks.")],
    system: Annotated[str | None, typer.Option("--system", help="A system prompt.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another answer.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe. Repeatable.")
    ] = None,
) -> None:
    """Ask a recipe's teacher one question.

    Shows whether it answers, how it ended, and how fast it was. The answer goes to standard output. It is not kept,
    and no run folder is touched. Asking a vllm teacher starts vLLM and stops it again; where `primer teacher serve`
    runs, let the recipe name its address.
    """
    from rich.text import Text

    from primer.progress import console, printer
    from primer.recipe_file import load_recipe
    from synth.ask import ask_teacher
    from synth.journal import Reply

    if not question.strip():
        raise PrimerError("There is no question.", 'Put it in quotation marks: primer teacher ask RECIPE "Why is ...?"')
    loaded = load_recipe(recipe, set_ or [])
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    [reply] = ask_teacher(loaded.synth, loaded.synth.sampling, [messages], seed)
    if not isinstance(reply, Reply):
        raise PrimerError(f"The teacher gave no answer: {reply}", "Mend what it names and ask again.")
    printer.print(Text(reply.text))
    console.print(Text(_figures(reply), style="dim"))


async def _serve(teacher: VllmTeacher, host: str, port: int) -> None:
    from synth.vllm_server import run_vllm

    async with run_vllm(teacher, host, port) as server:
        _announce(teacher, server, host)
        await _watch(server)


def _announce(teacher: VllmTeacher, server: VllmServer, host: str) -> None:
    from rich.text import Text

    from primer.progress import console, say
    from synth.presets import resolve
    from synth.vllm_server import ANYWHERE

    resolved = resolve(teacher)
    name = socket.gethostname() if host in ANYWHERE else server.host
    lines = [
        "synth:",
        "  teacher:",
        "    kind: openai",
        f"    base_url: {server.address(name)}/v1",
        f"    model: {resolved.served_names[0]}",
        f"    service: {resolved.served_names[0]}   # answers are kept under this name, should the address change",
    ]
    if resolved.system_prompt == "merge":
        lines.append("    system_prompt: merge")
    say(f"vLLM answers after {server.startup_seconds:.0f} s. In a recipe:\n")
    console.print(Text("\n".join(lines)))
    say("\nCtrl-C stops it.")


async def _watch(server: VllmServer) -> None:
    """Show the load until the server ends, or a person ends it."""
    from rich.live import Live
    from rich.text import Text

    from primer.progress import console, say
    from synth.vllm_metrics import read_load

    terminal = console.is_terminal
    with Live(Text(""), console=console, transient=True, auto_refresh=False) as live:
        before, since = await asyncio.to_thread(read_load, server.root), time.monotonic()
        while True:
            await _sleep_and_check(server, _LIVE_SECONDS if terminal else _LOG_SECONDS)
            now, at = await asyncio.to_thread(read_load, server.root), time.monotonic()
            line = _load_line(before, now, at - since)
            if terminal:
                live.update(Text(line), refresh=True)
            else:
                say(line)
            before, since = now, at


async def _sleep_and_check(server: VllmServer, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        server.check()
        await asyncio.sleep(min(_WATCH_SECONDS, left))


def _load_line(before: ServerLoad | None, now: ServerLoad | None, seconds: float) -> str:
    if now is None:
        return "  it does not tell its load (busy, or --disable-log-stats)"
    written = read = 0.0
    if before is not None:
        written = (now.generated_tokens - before.generated_tokens) / seconds
        read = (now.prompt_tokens - before.prompt_tokens) / seconds
    return (
        f"  {now.running:,d} running, {now.waiting:,d} waiting, {now.answered:,d} answered; {written:,.0f} tokens/s "
        f"written, {read:,.0f} read; cache {now.cache_used:.0%} full"
    )


def _flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def _figures(reply: Reply) -> str:
    rate = ""
    if reply.completion_tokens and reply.seconds:
        rate = f", {reply.completion_tokens / reply.seconds:.1f} tokens/s"
    ended = {"stop": "it ended by itself", "length": "cut off at max_tokens"}.get(reply.finish_reason, "")
    told = f"finish reason {reply.finish_reason}" + f" ({ended})" * bool(ended)
    tokens = f"{_count(reply.prompt_tokens)} tokens asked, {_count(reply.completion_tokens)} answered"
    return f"\n{told}; {tokens}; {reply.seconds:.1f} s{rate}"


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,d}"
