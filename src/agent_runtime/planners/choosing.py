"""Chooses the planner: one of ours, or one that the operator names as `module:attribute`."""

import importlib
import inspect
from functools import reduce
from typing import cast

from pydantic import TypeAdapter, ValidationError

from agent_runtime.config import Settings
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.domain.values import Identifier
from agent_runtime.planners.rules.planner import RulePlanner
from agent_runtime.services.ports import LanguageModel, Planner

_RESERVED = frozenset({"user", "registry"})
"""The names in a journal for plans that no planner made."""

_SHAPE = (
    "A planner is the result of a class or function that is called with the language model (None if none is "
    "configured). It has a name, needs_model and builtin_first (True or False), revision_help (a text or None), and "
    "`async def plan(request)`"
)
_IDENTIFIER = TypeAdapter[str](Identifier)


def choose_planner(settings: Settings, model: LanguageModel | None) -> Planner:
    """Return the planner that the settings name; with `auto`, the model planner if a model is configured.

    Raises: ConfigurationError where the planner needs a model and there is none, and where `module:attribute` names
    nothing with the shape of a `Planner`.
    """
    if ":" in settings.planner:
        planner = _load(settings.planner, model)
        if planner.needs_model and model is None:
            raise _make_missing_model_error(settings.planner)
        return planner
    if settings.planner == "rules" or (settings.planner == "auto" and model is None):
        return RulePlanner()
    if model is None:
        raise _make_missing_model_error(settings.planner)
    from agent_runtime.planners.model.planner import ModelPlanner  # noqa: PLC0415 - many services have no model

    known = settings.openai
    return ModelPlanner(model, catalogue_tokens=known.catalogue_tokens, fields=known.plan_fields)


def _make_missing_model_error(planner: str) -> ConfigurationError:
    return ConfigurationError(
        f"planner: {planner} needs a language model: set openai.api_key or openai.base_url (OPENAI_API_KEY, "
        "OPENAI_BASE_URL), or planner: rules"
    )


def _load(place: str, model: LanguageModel | None) -> Planner:
    """Import the operator's planner and build it. Raises: ConfigurationError."""
    module_name, _, path = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the edge of somebody else's code, which may raise anything
        remedy = "install it where the service is installed, or name its folder in PYTHONPATH"
        problem = f"{module_name} cannot be imported ({type(error).__name__}: {error}); {remedy}"
        raise ConfigurationError(f"planner: {place}: {problem}.") from error
    try:
        factory = reduce(getattr, path.split("."), module)
    except AttributeError:
        raise ConfigurationError(f"planner: {place}: {module_name} has no {path}. {_SHAPE}.") from None
    try:
        planner = factory(model)  # type: ignore[operator]  # its result is checked below
    except ConfigurationError:
        raise
    except Exception as error:  # likewise
        problem = f"it cannot be called with the language model ({type(error).__name__}: {error})"
        raise ConfigurationError(f"planner: {place}: {problem}. {_SHAPE}.") from error
    fault = _find_fault(planner)
    if fault:
        raise ConfigurationError(f"planner: {place}: its result {fault}. {_SHAPE}.")
    return cast("Planner", planner)


def _find_fault(planner: object) -> str | None:
    """Return why an object is no planner; None where it is one."""
    try:
        name = _IDENTIFIER.validate_python(getattr(planner, "name", None))
    except ValidationError:
        return "has no name: a letter, then up to 63 letters, digits, _ and -"
    if name in _RESERVED:
        return f"has the name {name!r}, which the journal has for plans that no planner made"
    for need in ("needs_model", "builtin_first"):
        if not isinstance(getattr(planner, need, None), bool):
            return f"has no {need} that is True or False"
    if not isinstance(getattr(planner, "revision_help", 0), str | None):
        return "has no revision_help that is a text or None"
    if not inspect.iscoroutinefunction(getattr(planner, "plan", None)):
        return "has no method `async def plan(request)`"
    return None
