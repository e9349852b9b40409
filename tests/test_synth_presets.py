"""Presets of vLLM teachers: what vLLM is started with, and Mixtral's format."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import pytest

from primer.errors import PrimerError
from primer.recipe_synth import VllmTeacher
from synth.presets import load_presets, resolve, vllm_identity
from synth.vllm_server import serve_command

QUESTION = [{"role": "user", "content": "Name a colour and say where one sees it."}]
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is rain?"},
    {"role": "assistant", "content": "Water."},
    {"role": "user", "content": "And snow?\nSay it in two words."},
]
# mistralai/Mixtral-8x7B-Instruct-v0.1's model card: <s> [INST] Instruction [/INST] Model answer</s> [INST] Follow-up
# instruction [/INST]
MIXTRAL_TEXT = "<s> [INST] Be brief.\n\nWhat is rain? [/INST] Water.</s> [INST] And snow?\nSay it in two words. [/INST]"


def vllm_teacher(model: str = "some/model", *arguments: str, **fields: Any) -> VllmTeacher:
    return VllmTeacher(kind="vllm", model=model, arguments=list(arguments), **{"startup_seconds": 30, **fields})


def rendered(template: str, messages: list[dict[str, str]]) -> str:
    """As transformers and vLLM render a chat template."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template).render(messages=messages, bos_token="<s>", eos_token="</s>")


def mixtral_template() -> str:
    template = resolve(vllm_teacher("mixtral-8x7b-instruct")).template
    assert template is not None
    return template.read_text(encoding="utf-8")


def test_every_preset_can_be_resolved_and_brings_its_files():
    for name, preset in load_presets().items():
        resolved = resolve(vllm_teacher(name))
        assert (resolved.preset, resolved.model, resolved.system_prompt) == (name, preset.model, preset.system_prompt)
        assert resolved.template is None or resolved.template.is_file()
        assert 0 < preset.active_parameters <= preset.parameters
        assert resolve(vllm_teacher(preset.model)).arguments == resolved.arguments  # by its name on the hub, too


def test_mixtrals_template_writes_its_format_to_the_letter():
    assert rendered(mixtral_template(), CONVERSATION) == MIXTRAL_TEXT
    assert rendered(mixtral_template(), QUESTION) == f"<s> [INST] {QUESTION[0]['content']} [/INST]"
    merged = [{"role": "user", "content": "Be brief.\n\nWhat is rain?"}, *CONVERSATION[2:]]
    assert rendered(mixtral_template(), merged) == MIXTRAL_TEXT  # system_prompt: merge and a system role agree


@pytest.mark.parametrize("messages", [CONVERSATION[2:], [*QUESTION, *QUESTION], [*QUESTION, *CONVERSATION[:1]]])
def test_mixtrals_template_refuses_what_the_format_cannot_say(messages: list[dict[str, str]]):
    with pytest.raises(jinja2.TemplateError, match="in turn"):
        rendered(mixtral_template(), messages)


def test_mixtrals_template_agrees_with_mistrals_own_tokenizer(tmp_path: Path):
    reason = "mistral_common is not installed: no second opinion on Mixtral's format (pip install mistral-common)"
    mistral = pytest.importorskip("mistral_common.tokens.tokenizers.mistral", reason=reason)
    from mistral_common import __path__ as package
    from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from transformers import LlamaTokenizer

    kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
    tokenizer = mistral.MistralTokenizer.v1()
    shutil.copy(Path(package[0], "data", "tokenizer.model.v1"), tmp_path / "tokenizer.model")
    served = LlamaTokenizer.from_pretrained(tmp_path)  # the class by which Mixtral's tokenizer is served
    for messages in (QUESTION, CONVERSATION, CONVERSATION[1:]):
        theirs = [kinds[message["role"]](content=message["content"]) for message in messages]
        encoded = tokenizer.encode_chat_completion(ChatCompletionRequest(messages=theirs))
        ours = rendered(mixtral_template(), messages)
        assert encoded.text.replace("▁", " ").replace("<0x0A>", "\n") == ours
        assert served(ours, add_special_tokens=False).input_ids == encoded.tokens


def test_the_recipes_arguments_win_over_the_presets_and_the_defaults():
    given = ["--max_model_len=1024", "-tp", "4", "--generation-config", "auto", "--no-enable-prefix-caching"]
    arguments = resolve(vllm_teacher("mixtral-8x7b-instruct", *given)).arguments
    assert arguments[-len(given) :] == tuple(given)
    before = arguments[: -len(given)]
    for name in ("--max-model-len", "--tensor-parallel-size", "--generation-config", "--enable-prefix-caching"):
        assert name not in before
    assert {"--dtype", "--chat-template", "--no-enable-log-requests"} <= set(before)
    own = resolve(vllm_teacher("mixtral-8x7b-instruct", "--chat-template", "mine.jinja")).arguments
    assert own.count("--chat-template") == 1


def test_a_command_names_the_model_as_the_recipe_does(tmp_path: Path):
    resolved = resolve(vllm_teacher("qwen3-4b-instruct"))
    command = serve_command(tmp_path / "vllm", resolved, "127.0.0.1", 8000)
    assert command[1:3] == ["serve", "Qwen/Qwen3-4B-Instruct-2507"]
    names = command[command.index("--served-model-name") + 1 :][:2]
    assert names == ["qwen3-4b-instruct", "Qwen/Qwen3-4B-Instruct-2507"]
    assert resolve(vllm_teacher(str(tmp_path))).model == str(tmp_path)


@pytest.mark.parametrize("argument", ["--port", "--host=0.0.0.0", "--served_model_name"])
def test_arguments_that_primer_sets_are_refused(argument: str):
    with pytest.raises(PrimerError, match="Primer sets itself"):
        resolve(vllm_teacher("some/model", argument, "1"))


def test_a_model_that_is_none_is_told_at_once():
    with pytest.raises(PrimerError, match="no preset, no folder") as error:
        resolve(vllm_teacher("mixtral-8x7b"))
    assert "mixtral-8x7b-instruct" in error.value.remedy


def test_the_identity_changes_with_the_answers_and_not_with_the_speed(tmp_path: Path):
    first = vllm_identity(vllm_teacher("mixtral-8x7b-instruct"))
    assert first.startswith("vllm:mistralai/Mixtral-8x7B-Instruct-v0.1, ")
    assert str(Path.cwd()) not in first
    faster = ["-tp", "8", "--gpu-memory-utilization=0.8", "--max-num-seqs", "64", "--no-enable-prefix-caching"]
    assert vllm_identity(vllm_teacher("mistralai/Mixtral-8x7B-Instruct-v0.1", *faster)) == first
    assert vllm_identity(vllm_teacher("mixtral-8x7b-instruct", mode="in_process", environment="v")) == first
    (tmp_path / "t.jinja").write_text("{{ messages }}", encoding="utf-8")
    changed = [["--quantization", "fp8"], ["--max-model-len", "512"], ["--chat-template", str(tmp_path / "t.jinja")]]
    identities = {vllm_identity(vllm_teacher("mixtral-8x7b-instruct", *arguments)) for arguments in changed}
    assert len(identities | {first}) == 4
