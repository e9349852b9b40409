"""datatrove's InferenceRunner on an endpoint; with --checkpoints, its chunk files and cache of requests as well.

Needs datatrove, aiofiles, httpx and orjson; aiosqlite and xxhash for checkpoints. Its `inference` extra would bring
vLLM and SGLang too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiofiles  # noqa: F401  # datatrove imports both as it goes; here, so that no import is measured
import httpx  # noqa: F401
from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.inference.types import InferenceResult
from datatrove.pipeline.writers import JsonlWriter
from measured import SAMPLING, arguments, measured, prompts, report


async def rollout(document: Document, generate: Any) -> InferenceResult:
    """One request a document."""
    result: InferenceResult = await generate({"messages": [{"role": "user", "content": document.text}]})
    return result


def rows(folder: Path) -> int:
    """Documents with a reply among the files written."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(bool(json.loads(line)["metadata"]["rollout_results"][0]["text"]) for line in lines)


def main() -> None:
    """Answer every document and report."""
    options = arguments(__doc__, "--checkpoints")
    if options.checkpoints:
        import aiosqlite  # noqa: F401
    documents = [Document(text=prompt, id=str(index)) for index, prompt in enumerate(prompts(options.requests))]
    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path="mock",
        endpoint_url=options.base_url,
        max_concurrent_generations=options.concurrency,
        default_generation_params=dict(SAMPLING),
    )
    output = options.folder / "output"
    runner = InferenceRunner(
        rollout,
        config,
        # Its default is gzip, whose time would be counted against it.
        JsonlWriter(str(output), output_filename="${rank}_${chunk_index}.jsonl", compression=None),
        checkpoints_local_dir=str(options.folder / "checkpoints") if options.checkpoints else None,
    )
    with measured() as figures:
        runner.run(iter(documents))
    report(figures, "datatrove", rows(output))


if __name__ == "__main__":
    main()
