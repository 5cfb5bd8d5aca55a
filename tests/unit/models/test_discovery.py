"""The name of the model, where the settings have none: read from a list of models, and chosen or not."""

from typing import Any

import pytest

from agent_runtime.config import OpenAISettings
from agent_runtime.models.discovery import choose_model, read_names
from agent_runtime.models.failures import Failure, Failures
from agent_runtime.text.redaction import Redactor


def choose(*names: str, base_url: str = "http://127.0.0.1:11434/v1") -> str:
    settings = OpenAISettings(base_url=base_url)
    return choose_model(names, settings, Failures(settings, Redactor(), answer_bytes=100))


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ({"object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b"}]}, ["a", "b"]),
        ({"models": [{"name": "a"}]}, ["a"]),
        ([{"id": "a"}, "b"], ["a", "b"]),
        ({"data": [{"id": 7}, {}, None, {"id": " "}, {"id": "x" * 201}, {"id": "a"}]}, ["a"]),
        ({"data": None}, []),
        ({"data": {"id": "a"}}, []),
        (None, []),
        ("a", []),
    ],
)
def test_a_list_of_models_is_read_in_each_of_its_forms(answer: Any, names: list[str]) -> None:
    assert list(read_names(answer)) == names


@pytest.mark.parametrize(
    "other",
    [
        "text-embedding-nomic-embed-text-v1.5",
        "bge-m3",
        "all-minilm:latest",
        "whisper-1",
        "tts-1",
        "omni-moderation-latest",
        "dall-e-3",
        "jina-reranker-v2",
        "gpt-oss:120b-cloud",
        "kimi-k2:cloud",
    ],
)
def test_the_only_model_that_chats_is_the_one(other: str) -> None:
    assert choose(other, "qwen3:8b", base_url="https://models.example/v1") == "qwen3:8b"


@pytest.mark.parametrize("host", ["127.0.0.1:11434", "localhost:1234", "[::1]:8080"])
def test_of_several_on_this_machine_the_first_is_the_one(host: str) -> None:
    assert choose("bge-m3", "qwen3:8b", "gemma3:4b", base_url=f"http://{host}/v1") == "qwen3:8b"


@pytest.mark.parametrize("host", ["models.example", "10.0.0.7:8000", "localhost.example"])
def test_of_several_elsewhere_none_is_chosen_and_all_are_named(host: str) -> None:
    with pytest.raises(Failure, match=r"set openai\.model to one of 'large', 'small'\.") as caught:
        choose("large", "small", base_url=f"http://{host}/v1")
    assert caught.value.code == "model_unknown"


def test_of_many_the_first_are_named() -> None:
    with pytest.raises(Failure, match=r"'m19' and 280 more\.$"):
        choose(*(f"m{number}" for number in range(300)), base_url="https://models.example/v1")


def test_where_no_model_chats_the_others_are_named() -> None:
    with pytest.raises(Failure, match=r"It lists 'bge-m3', 'gpt-oss:120b-cloud'\."):
        choose("bge-m3", "gpt-oss:120b-cloud")


def test_where_there_is_no_model_it_is_told_to_load_one() -> None:
    with pytest.raises(Failure, match="lists no model: load one"):
        choose()
