"""vLLM as what runs an evaluated model: requests and answers against a stand-in, and the real one where it is."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tiny_phi import make_tokenizer

from eval.language_model import Query, Writing
from eval.vllm_model import VllmModel
from primer.errors import PrimerError

CONTEXT = 48
BLOCK = 16  # tokens that vLLM's cache keeps together
END = 50_256


def likelihood(before: int, token: int) -> float:
    """Of a token after another, in the stand-in: one in seven is the likeliest."""
    return -1.0 - (3 * before + token) % 7


@dataclass
class Parameters:
    """vLLM's SamplingParams, as far as they are used."""

    max_tokens: int
    temperature: float
    n: int = 1
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_reading_prefix_cache: bool | None = None


class Engine:
    """vLLM's LLM: with its cache, and with its undefined log-probabilities of what came from there."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.asked: list[tuple[list[int], Parameters]] = []
        self._cached: set[tuple[int, ...]] = set()

    def generate(
        self, prompts: Sequence[Mapping[str, list[int]]], parameters: Sequence[Parameters], *, use_tqdm: bool
    ) -> list[SimpleNamespace]:
        assert not use_tqdm
        return [self._answer(p["prompt_token_ids"], q) for p, q in zip(prompts, parameters, strict=True)]

    def _answer(self, tokens: list[int], parameters: Parameters) -> SimpleNamespace:
        if len(tokens) + 1 > self.settings["max_model_len"]:
            raise ValueError("the prompt is too long")
        self.asked.append((tokens, parameters))
        blocks = [tuple(tokens[:end]) for end in range(BLOCK, len(tokens), BLOCK)]
        cached = 0
        while not parameters.skip_reading_prefix_cache and cached < len(blocks) and blocks[cached] in self._cached:
            cached += 1
        self._cached.update(blocks)
        found: list[dict[int, Any] | None] = [None]
        for place in range(1, len(tokens)):
            undefined = place - 1 < cached * BLOCK
            value = float("nan") if undefined else likelihood(*tokens[place - 1 : place + 1])
            found.append({tokens[place]: SimpleNamespace(logprob=value, rank=1 if value == -1.0 else 5)})
        outputs = [SimpleNamespace(text=f"answer {number}") for number in range(parameters.n)]
        return SimpleNamespace(prompt_logprobs=found, num_cached_tokens=cached * BLOCK, outputs=outputs)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tokenizer(folder, CONTEXT)
    config = {"max_position_embeddings": CONTEXT, "rope_parameters": {"rope_type": "default"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, 13]}), encoding="utf-8")
    return folder


@pytest.fixture
def model(directory: Path, monkeypatch: pytest.MonkeyPatch) -> VllmModel:
    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = Engine, Parameters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    return VllmModel(directory)


def expected(tokens: Sequence[int], scored: int) -> tuple[float, bool]:
    values = [likelihood(tokens[place - 1], tokens[place]) for place in range(len(tokens) - scored, len(tokens))]
    return sum(values), all(value == -1.0 for value in values)


def test_the_scored_tokens_are_the_last_ones_and_the_cache_is_never_believed(model: VllmModel):
    beginning = list(range(100, 137))  # two blocks and five tokens
    groups = [
        [Query([*beginning, 7, 8], 2), Query([*beginning, 9], 1)],
        [Query([5, 6], 1)],
        [Query(beginning, 30), Query(beginning, 30)],  # the second time both of its blocks are kept
        [Query(beginning[:17], 16), Query([3, 3 * -3 % 7], 1)],
    ]
    shares: list[float] = []
    found = model.score(groups, shares.append)
    assert found == [[expected(query.tokens, query.scored) for query in group] for group in groups]
    assert {greedy for group in found for _, greedy in group} == {True, False}
    assert shares == [1.0]
    afresh = [tokens for tokens, parameters in model._engine.asked if parameters.skip_reading_prefix_cache]
    assert afresh == [beginning, beginning, beginning[:17]]
    assert all(parameters.prompt_logprobs == 0 for _, parameters in model._engine.asked)


def test_texts_are_divided_and_cut_as_for_any_model(model: VllmModel):
    long = "one two three four five six seven eight nine ten " * 8
    (row, cut, bare) = model.ask([[("The sky is ", "blue"), ("The sky is", " blue")], [(long, "eleven")], [("", "a")]])
    assert row.scores[0] == row.scores[1]
    assert (row.cut, cut.cut, bare.cut) == (False, True, False)
    asked = [tokens for tokens, _ in model._engine.asked]
    assert asked[0] == model.encode(["The sky is blue"])[0]
    assert asked[2] == model.encode([long.rstrip() + " eleven"])[0][-(CONTEXT + 1) :]
    assert asked[3] == [END, *model.encode(["a"])[0]]
    assert model._engine.settings["max_model_len"] == CONTEXT + 2 == model._engine.settings["hf_overrides"].popitem()[1]


def test_a_model_with_learned_positions_is_asked_within_its_table(directory: Path, model: VllmModel, tmp_path: Path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"n_positions": CONTEXT}), encoding="utf-8")
    learned = VllmModel(tmp_path)
    assert (learned.max_length, learned._engine.settings["max_model_len"]) == (CONTEXT - 2, CONTEXT)
    assert learned._engine.settings["hf_overrides"] == {}
    assert learned.ask([[("word " * 100, "end")]])[0].cut


def test_generation_asks_for_what_is_wanted_and_each_prompt_for_itself(model: VllmModel):
    writing = Writing(tokens=8, stops=("\n",), samples=3, temperature=0.7, top_p=0.9, seed=1)
    found = model.generate(["one", "two", "word " * 100, ""], writing)
    assert found == [["answer 0", "answer 1", "answer 2"]] * 4
    asked = model._engine.asked
    assert [len(tokens) for tokens, _ in asked] == [1, 1, CONTEXT - 8, 1]
    assert asked[3][0] == [END]
    first = asked[0][1]
    assert (first.n, first.temperature, first.top_p, first.max_tokens) == (3, 0.7, 0.9, 8)
    assert (first.stop, first.stop_token_ids, first.prompt_logprobs) == (["\n"], [END, 13], None)
    assert len({parameters.seed for _, parameters in asked}) == 4
    model.generate(["two"], writing)
    assert asked[4][1].seed == asked[1][1].seed  # whatever else is asked
    model.generate(["two"], Writing(tokens=8))
    assert (asked[5][1].seed, asked[5][1].temperature) == (None, 0.0)
    with pytest.raises(PrimerError, match="48 tokens are to be written, but the model's context is 48"):
        model.generate(["one"], Writing(tokens=CONTEXT))


def test_a_diverged_model_is_an_error(model: VllmModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "likelihood", lambda *_: float("nan"))
    with pytest.raises(PrimerError, match=r"1 log-likelihoods .* not finite"):
        model.score([[Query([1, 2], 1)]])


def test_what_is_missing_is_named(directory: Path, model: VllmModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no kernels\nfor this machine")

    monkeypatch.setattr(Engine, "generate", broken)
    with pytest.raises(PrimerError, match="no kernels for this machine"):
        model.score([[Query([1, 2], 1)]])
    monkeypatch.setattr(sys.modules["vllm"], "LLM", broken)
    with pytest.raises(PrimerError, match=r"vLLM cannot run the model in .*: no kernels for this machine"):
        VllmModel(directory)
    with pytest.raises(PrimerError, match=r"config.json cannot be read"):
        VllmModel(tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(PrimerError, match="needs the Python package 'vllm'") as error:
        VllmModel(directory)
    assert "make vllm" in error.value.remedy
    assert "docs/teachers.md" in error.value.remedy


def wide_model(folder: Path, context: int) -> Path:
    """As `tiny_phi.make_model`, with heads of 64: vLLM has no kernels for narrower ones."""
    import torch
    from transformers import PhiConfig, PhiForCausalLM

    make_tokenizer(folder, context)
    torch.manual_seed(0)
    sizes = {"vocab_size": 51_200, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    ends = {"bos_token_id": END, "eos_token_id": END}
    config = PhiConfig(**sizes, **ends, max_position_embeddings=context, rope_parameters=rope, initializer_range=0.1)
    PhiForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here (make vllm)")
def test_vllm_answers_as_torch_does(tmp_path: Path):
    from eval.model import TorchModel

    folder = wide_model(tmp_path, 128)
    ours, theirs = VllmModel(folder), TorchModel(folder, "cpu")
    rows = [
        [("The sky is", " blue"), ("The sky is", " green as grass in spring")],
        [("word " * 200, "end"), ("word " * 200, "a much longer answer than the others")],
        [("", "No context at all"), ("", "none")],
    ]
    for _ in range(2):  # the second time all is in vLLM's cache
        for found, wanted in zip(ours.ask(rows), theirs.ask(rows), strict=True):
            assert found.cut == wanted.cut
            assert [greedy for _, greedy in found.scores] == [greedy for _, greedy in wanted.scores]
            assert [value for value, _ in found.scores] == pytest.approx([v for v, _ in wanted.scores], abs=1e-3)
    writing = Writing(tokens=24, stops=(" the",))
    prompts = ["The sky is", "word " * 200, ""]
    assert ours.generate(prompts, writing) == theirs.generate(prompts, writing)
