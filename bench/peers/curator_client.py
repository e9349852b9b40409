"""bespokelabs-curator's LLM on its own OpenAI client, with its cache on, as it is by default."""

from __future__ import annotations

import os
from importlib.resources import files

# Nothing leaves the machine, and no time passes waiting for it.
os.environ.update(TELEMETRY_ENABLED="false", LITELLM_LOCAL_MODEL_COST_MAP="True", HF_HUB_OFFLINE="1")
# The encoding that it counts tokens with would be downloaded; litellm, which it depends on, has it.
os.environ["TIKTOKEN_CACHE_DIR"] = str(files("litellm").joinpath("litellm_core_utils", "tokenizers"))

from bespokelabs import curator
from datasets import Dataset
from measured import SAMPLING, arguments, measured, prompts, report

NO_LIMIT = 10**9  # its own limits are 200 requests and 100,000 tokens a minute


class Asker(curator.LLM):
    """One request a row."""

    def prompt(self, row: dict[str, str]) -> str:
        """The prompt of a row."""
        return row["prompt"]

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        """The row with its reply."""
        return {"prompt": row["prompt"], "reply": response}


def main() -> None:
    """Answer every row and report."""
    options = arguments(__doc__)
    asker = Asker(
        model_name="mock",
        backend="openai",
        generation_params=dict(SAMPLING),
        backend_params={
            "base_url": f"{options.base_url}/v1",
            "api_key": "none",
            "max_concurrent_requests": options.concurrency,
            "max_requests_per_minute": NO_LIMIT,
            "max_tokens_per_minute": NO_LIMIT * 1000,
        },
    )
    dataset = Dataset.from_dict({"prompt": prompts(options.requests)})
    with measured() as figures:
        response = asker(dataset, working_dir=str(options.folder))
    report(figures, "bespokelabs-curator", sum(bool(reply) for reply in response.dataset["reply"]))


if __name__ == "__main__":
    main()
