"""The planner that the settings name, and the errors for one that is none."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent_runtime.config import Settings
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.planners.choosing import choose_planner
from agent_runtime.testing import ScriptedLanguageModel

MODEL = ScriptedLanguageModel([])
GOOD = """
class Planner:
    name = "mine"
    needs_model = {needs_model}
    builtin_first = False
    revision_help = None
    def __init__(self, model):
        self.model = model
    async def plan(self, request):
        raise NotImplementedError
class Outer:
    make = Planner
"""

Place = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Write a module that can be imported, and return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"module_of_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return write


@pytest.mark.parametrize(
    ("setting", "model", "name"),
    [("auto", None, "rules"), ("auto", MODEL, "openai"), ("rules", MODEL, "rules"), ("openai", MODEL, "openai")],
)
def test_the_settings_name_the_planner(setting: str, model: ScriptedLanguageModel | None, name: str) -> None:
    planner = choose_planner(Settings(planner=setting), model)
    assert (planner.name, planner.needs_model) == (name, name == "openai")


@pytest.mark.parametrize("attribute", ["Planner", "Outer.make"])
@pytest.mark.parametrize("model", [None, MODEL])
def test_a_planner_of_the_operator_gets_the_model(
    place: Place, attribute: str, model: ScriptedLanguageModel | None
) -> None:
    name = place(GOOD.format(needs_model=False))
    planner = choose_planner(Settings(planner=f"{name}:{attribute}"), model)
    assert planner.name == "mine"
    assert vars(planner)["model"] is model


@pytest.mark.parametrize("built_in", [True, False])
def test_a_planner_that_needs_a_model_is_refused_without_one(place: Place, *, built_in: bool) -> None:
    setting = "openai" if built_in else f"{place(GOOD.format(needs_model=True))}:Planner"
    with pytest.raises(ConfigurationError, match=rf"^planner: {setting} needs a language model: set .*OPENAI_BASE_URL"):
        choose_planner(Settings(planner=setting), None)
    assert choose_planner(Settings(planner=setting), MODEL).needs_model


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module", r"cannot be imported \(ModuleNotFoundError: .*no_such_module.*PYTHONPATH"),
        ("raise KeyError('x')", r"cannot be imported \(KeyError: 'x'\)"),
        ("Other = 1", r"has no Planner\. A planner is the result of"),
        ("Planner = 1", r"cannot be called with the language model \(TypeError: 'int'"),
        ("def Planner(): ...", r"cannot be called with the language model \(TypeError"),
        ("def Planner(model): raise ValueError('no disk')", r"language model \(ValueError: no disk\)"),
        ("def Planner(model): ...", r"its result has no name: a letter"),
        (GOOD.replace('"mine"', '"two words"'), r"its result has no name: a letter"),
        (GOOD.replace('"mine"', '"user"'), r"has the name 'user', which the journal has"),
        (GOOD.replace("needs_model =", "needs ="), r"has no needs_model that is True or False"),
        (GOOD.replace("builtin_first = False", "builtin_first = 0"), r"has no builtin_first that is True or False"),
        (GOOD.replace("    revision_help = None\n", ""), r"has no revision_help that is a text or None"),
        (GOOD.replace("async def plan", "def plan"), r"has no method `async def plan\(request\)`"),
        (GOOD.replace("async def plan", "async def propose"), r"has no method `async def plan\(request\)`"),
    ],
)
def test_a_planner_that_is_none_is_refused_with_what_it_lacks(place: Place, text: str, said: str) -> None:
    setting = f"{place(text.replace('{needs_model}', 'False'))}:Planner"
    with pytest.raises(ConfigurationError, match=rf"^planner: {setting}: .*{said}"):
        choose_planner(Settings(planner=setting), None)


def test_what_a_factory_says_of_the_configuration_is_passed_on(place: Place) -> None:
    name = place(
        "from agent_runtime.domain.errors import ConfigurationError\n"
        "def make(model): raise ConfigurationError('MY_KEY is not set')"
    )
    with pytest.raises(ConfigurationError, match=r"^MY_KEY is not set$"):
        choose_planner(Settings(planner=f"{name}:make"), None)


@pytest.mark.parametrize("setting", ["none", "a:", ":a", "a b:c", "a:b:c", "a.:b", "a:b.", "1a:b", "/a/b.py:c"])
def test_a_setting_that_names_no_planner_is_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match="must be 'auto', 'openai', 'rules' or module:attribute"):
        Settings(planner=setting)
