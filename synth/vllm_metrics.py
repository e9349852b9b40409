"""What a vLLM server says of itself: its counters, read from /metrics in Prometheus's text format."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

_SECONDS = 5.0


@dataclass(frozen=True)
class ServerLoad:
    """A vLLM server at one moment. Token counts are since its start."""

    running: int
    waiting: int
    prompt_tokens: int
    generated_tokens: int
    answered: int
    cache_used: float


def read_load(root: str) -> ServerLoad | None:
    """Ask a server how it is doing; None if it does not say.

    Args:
        root: Its address, without a path.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{root}/metrics", timeout=_SECONDS) as response:
            return parse_load(response.read().decode(errors="replace"))
    except (urllib.error.URLError, OSError):
        return None


def parse_load(text: str) -> ServerLoad | None:
    """The load in a page of metrics; None if it is not vLLM's. With several engines, of all together."""
    samples = list(_samples(text.splitlines()))
    values = {name: [value for of, value in samples if of == name] for name in {of for of, _ in samples}}
    if "vllm:num_requests_running" not in values:
        return None

    def total(name: str) -> int:
        return round(sum(values.get(name, [])))

    cache = values.get("vllm:kv_cache_usage_perc", [0.0])
    return ServerLoad(
        running=total("vllm:num_requests_running"),
        waiting=total("vllm:num_requests_waiting"),
        prompt_tokens=total("vllm:prompt_tokens_total"),
        generated_tokens=total("vllm:generation_tokens_total"),
        answered=total("vllm:request_success_total"),
        cache_used=sum(cache) / len(cache),
    )


def _samples(lines: Iterable[str]) -> Iterable[tuple[str, float]]:
    """Names and values; a line is `name{label="text, with spaces"} value [time]`."""
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        name, braces, rest = line.partition("{")
        if braces:
            value = rest.rpartition("}")[2].split()
        else:
            name, *value = line.split()
        try:
            number = float(value[0])
        except (IndexError, ValueError):
            continue
        if isfinite(number):
            yield name, number
