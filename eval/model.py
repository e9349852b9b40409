"""A model directory in Hugging Face layout, run by PyTorch: lm-evaluation-harness's answers, sooner.

What makes it faster: `eval.scoring` (beginnings once, logits where needed), batches of similar length, and texts
tokenised piece by piece, each once (`eval.encoding`). What makes the answers equal: the same rule for dividing a text
into context and continuation, the same cut from the left, log-softmax in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.language_model import Progress, Query, Score, Writing
from eval.loading import context_length, find_device, open_model
from eval.scoring import Scorer
from eval.tokenised import TokenisedModel


class TorchModel(TokenisedModel):
    """A loaded model (see `eval.language_model.LanguageModel`).

    Args:
        folder: The directory.
        device: `auto` takes the GPU if there is one.

    Raises:
        PrimerError: If the directory holds no such model, or there is no such device.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        path = Path(folder)
        self.model, tokenizer, decoder = open_model(path, find_device(device))
        super().__init__(path, tokenizer, context_length(self.model.config, tokenizer))
        self._scorer = Scorer(decoder)

    def score(self, groups: Sequence[Sequence[Query]], progress: Progress | None = None) -> list[list[Score]]:
        """Score queries (see `eval.scoring.Scorer.score`).

        Raises:
            PrimerError: If a log-likelihood is not a finite number.
        """
        return self._finite(self._scorer.score(groups, progress))

    def generate(self, prompts: Sequence[str], writing: Writing, progress: Progress | None = None) -> list[list[str]]:
        """Continue each prompt `writing.samples` times (see `eval.batched.generate`)."""
        from eval.batched import generate

        return generate(self.model, self.tokenizer, prompts, writing, self.max_length, progress)
