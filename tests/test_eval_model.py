"""The fast language model: transformers' logits, every beginning computed once, errors for people."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_phi import make_model, make_tokenizer

from eval.encoding import FastTokenizer, encode_pairs, keeps_words_apart, load_tokenizer
from eval.language_model import Query
from eval.loading import TransformersDecoder, open_model
from eval.model import TorchModel
from eval.phi import Phi, load_phi
from eval.scoring import Scorer
from eval.stems import find_stems, shared_length
from eval.tokenised import AnswerTooLongError
from primer.errors import PrimerError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> TorchModel:
    return TorchModel(folder, "cpu")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    """Transformers' own model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.inference_mode()
def alone(reference: Any, query: Query) -> tuple[float, bool]:
    """The score of a query by one forward pass of its own."""
    logits = reference(torch.tensor([query.tokens[:-1]])).logits[0, -query.scored :].float()
    targets = torch.tensor(query.tokens[-query.scored :])
    values = logits.log_softmax(-1)[torch.arange(query.scored), targets]
    return float(values.double().sum()), bool((logits.argmax(-1) == targets).all())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25}},
    ],
)
@torch.inference_mode()
def test_phi_has_the_logits_of_transformers(change: dict[str, Any], tmp_path: Path):
    from transformers import PhiConfig, PhiForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(1)
    theirs = PhiForCausalLM(PhiConfig(**settings | change)).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_phi(tmp_path, CPU)
    assert isinstance(ours, Phi)
    ids = torch.randint(0, 300, (3, 20))
    visible = torch.ones(3, 20, dtype=torch.long)
    visible[0, :7], visible[2, :15] = 0, 0  # padding on the left, as generation has it
    positions = (visible.cumsum(1) - 1).clamp(min=0)
    first, expected = (m(ids, visible, positions, use_cache=True) for m in (ours, theirs))
    assert torch.allclose(first.logits[visible.bool()], expected.logits[visible.bool()], atol=1e-4)
    for found in (first, expected):
        found.past_key_values.batch_select_indices(torch.tensor([2, 0]))
    visible = torch.cat([visible[[2, 0]], torch.ones(2, 3, dtype=torch.long)], 1)
    more, positions = torch.randint(0, 300, (2, 3)), (visible.cumsum(1) - 1)[:, -3:]
    for found in (first, expected):
        found.past_key_values.batch_repeat_interleave(2)
    arguments = (more.repeat_interleave(2, 0), visible.repeat_interleave(2, 0), positions.repeat_interleave(2, 0))
    second, right = (
        m(*arguments, past_key_values=found.past_key_values, use_cache=True, logits_to_keep=1)
        for m, found in ((ours, first), (theirs, expected))
    )
    assert second.logits.shape == (4, 1, 300)
    assert torch.allclose(second.logits, right.logits, atol=1e-4)


def test_half_precision_is_read_as_single_on_a_cpu_and_kept_elsewhere(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    found, kept = load_phi(tmp_path, CPU), load_phi(tmp_path, torch.device("meta"))
    assert found is not None
    assert found.dtype == torch.float32
    assert kept is not None
    assert kept.dtype == torch.bfloat16


@pytest.mark.parametrize("own", [True, False])
def test_shared_beginnings_change_no_score_and_cost_once(
    own: bool, folder: Path, reference: Any, monkeypatch: pytest.MonkeyPatch
):
    if own:
        _, _, decoder = open_model(folder, CPU)
        assert isinstance(decoder, Phi)
    else:
        decoder = TransformersDecoder(reference, 512)
        assert decoder.shares
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, 50_000, (count,), generator=generator).tolist()

    prompt, other = tokens(120), tokens(90)
    groups = []
    for beginning in [prompt] * 6 + [other] * 5 + [[]] * 2:
        context = [*beginning, *tokens(12)]
        answers = [tokens(1) for _ in range(4)] if len(groups) % 2 else [tokens(count) for count in (3, 7, 1)]
        groups.append([Query([*context, *answer], len(answer)) for answer in answers])
    groups.append([Query(tokens(40), 39)])
    groups += [[Query([*other, 5], 1), Query([*other, 6], 1)]] * 5  # nothing of their own before what is scored
    read: list[int] = []
    whole = type(decoder).read

    def counted(self: Any, tokens: torch.Tensor, **named: Any) -> torch.Tensor:
        read.append(tokens.numel())
        return whole(self, tokens, **named)

    monkeypatch.setattr(type(decoder), "read", counted)
    shares: list[float] = []
    found = Scorer(decoder).score(groups, shares.append)
    for group, scores in zip(groups, found, strict=True):
        for query, (value, greedy) in zip(group, scores, strict=True):
            expected, likeliest = alone(reference, query)
            assert value == pytest.approx(expected, abs=1e-4)
            assert greedy == likeliest
    assert shares[-1] == pytest.approx(1)
    assert sum(read) < 1.6 * (120 + 90 + 13 * 20 + 40 + 5)


def test_a_window_is_not_overlooked(tmp_path: Path):
    from transformers import MistralConfig, MistralForCausalLM

    make_tokenizer(tmp_path, 64)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=51_200, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, sliding_window=8, initializer_range=0.5,
    )  # fmt: skip
    theirs = MistralForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    model = TorchModel(tmp_path, "cpu")
    context = list(range(100, 130))
    queries = [Query([*context, 7, 8, 9], 3), Query([*context, 5, 6], 2)]
    for (value, _), query in zip(model.score([queries])[0], queries, strict=True):
        assert value == pytest.approx(alone(theirs, query)[0], abs=1e-4)


def test_the_best_stems_are_chosen():
    long, short = list(range(500)), list(range(30))
    sequences = [[*long, n] for n in range(1000, 1004)] + [[*short, n] for n in range(2000, 2003)] + [[9], []]
    (stem,) = find_stems(sequences)
    assert list(stem.tokens) == long
    assert sorted(stem.members) == [0, 1, 2, 3]
    many = [[*short, n] for n in range(2000, 2040)]
    assert [len(stem.tokens) for stem in find_stems(many)] == [30]
    assert find_stems([[*range(8), n] for n in range(100, 400)]) == []  # too short to gain by
    assert find_stems([]) == []
    two = [[*range(20), *[kind] * 280, n] for kind in (7, 8) for n in range(40)]  # longer ones beat what all share
    assert sorted(len(stem.tokens) for stem in find_stems(two)) == [300, 300]
    assert [shared_length(a, b) for a, b in (([], [1]), ([1, 2, 3], [1, 2]), ([1, 2, 3], [1, 5, 3]))] == [0, 2, 1]


def test_ids_are_those_of_transformers_whole_or_in_pieces(folder: Path):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    assert isinstance(ours, FastTokenizer)
    texts = [
        "",
        " two  words\n\n\n  12 3.4",
        "<|endoftext|>Ünïcödé – 數學 🌧",
        "it's\tI'm",
        "a" * 50,
        "x\x1c\n\n y\u3000z",
    ]
    for options in ({}, {"add_special_tokens": False}, {"add_special_tokens": False, "split_special_tokens": True}):
        assert ours(texts, **options)["input_ids"] == theirs(texts, **options)["input_ids"]
    ids = ours(texts[2])["input_ids"]
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert keeps_words_apart(folder)
    pairs = [
        (context.rstrip(), continuation) for context in texts for continuation in (" word", "\n12", "joined", "\x1cz")
    ]
    found = encode_pairs(pairs, lambda some: ours(some)["input_ids"], apart=True)
    for (ids, known), (context, continuation) in zip(found, pairs, strict=True):
        assert ids == theirs(context + continuation)["input_ids"]
        assert known == len(theirs(context)["input_ids"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalizer", {"type": "NFC"}),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
        ("added_tokens", [{"content": "two words", "lstrip": False, "rstrip": False, "single_word": False}]),
    ],
)
def test_other_tokenizers_are_not_given_pieces(key: str, value: Any, folder: Path, tmp_path: Path):
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings | {key: value}), encoding="utf-8")
    assert not keeps_words_apart(tmp_path)


def test_the_context_is_cut_from_the_left(model: TorchModel, reference: Any):
    context, answers = "long " * 600, (" word", " and another")
    cut, short = model.ask([[(context, answer) for answer in answers], [("A", " b")]])
    assert cut.cut
    assert not short.cut
    for answer, (value, _) in zip(answers, cut.scores, strict=True):
        ids = model.encode([context.rstrip() + " " + answer])[0]
        scored = len(ids) - len(model.encode([context.rstrip()])[0])
        assert value == pytest.approx(alone(reference, Query(ids[-513:], scored))[0], abs=1e-4)


def test_an_answer_longer_than_the_context_says_so(tmp_path: Path):
    short = TorchModel(make_model(tmp_path, context=8), "cpu")
    with pytest.raises(AnswerTooLongError, match="11 tokens, more than the model's context of 8"):
        short.ask([[("Count:", " one two three four five six seven eight nine ten eleven")]])


def test_a_diverged_model_is_an_error_and_not_a_score(folder: Path):
    broken = TorchModel(folder, "cpu")
    broken.model._head[1][7] = math.nan
    with pytest.raises(PrimerError, match="not finite numbers: it has diverged"):
        broken.ask([[("a", " b")]])


def test_damaged_and_missing_models_are_errors_for_people(folder: Path, tmp_path: Path):
    with pytest.raises(PrimerError, match=r"no config\.json"):
        TorchModel(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(PrimerError, match="cannot be loaded"):
        TorchModel(damaged)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.fc1.bias"]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PrimerError, match=r"lack 1 tensor\(s\), model.layers.1.mlp.fc1.bias"):
        TorchModel(damaged)
    shutil.copy(folder / "model.safetensors", damaged)
    (damaged / "tokenizer.json").write_text("{")
    with pytest.raises(PrimerError, match=r"tokenizer in .* cannot be loaded"):
        TorchModel(damaged)


def test_a_model_that_changes_its_logits_after_the_head_is_refused(folder: Path, reference: Any):
    from eval.loading import _check_head

    _check_head(reference, folder)
    hook = reference.register_forward_hook(lambda module, inputs, output: setattr(output, "logits", output.logits / 2))
    with pytest.raises(PrimerError, match="changes its logits after its head"):
        _check_head(reference, folder)
    hook.remove()


def test_opening_a_model_takes_neither_transformers_nor_the_harness(folder: Path):
    import subprocess
    import sys

    code = (
        "import sys; from eval.model import TorchModel; from eval.task import ChoiceTask; "
        f"TorchModel({str(folder)!r}, 'cpu').ask([[('a', ' b')]]); "
        "print([name for name in ('transformers', 'lm_eval', 'datasets', 'scipy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
