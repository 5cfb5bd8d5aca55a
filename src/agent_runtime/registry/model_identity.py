"""The identity of the language model of agent steps, of which the endpoint may know more than the settings."""

from collections.abc import Awaitable, Callable

import structlog

from agent_runtime.config import OPENAI_URL, OpenAISettings
from agent_runtime.domain.contract import PinnedModel
from agent_runtime.domain.errors import ModelError
from agent_runtime.registry.resolved import ShownValues

log = structlog.get_logger()


class ModelIdentity:
    """The identity of the model, as contracts pin it.

    `pinned` is None if no model is configured, or if its name is not known yet; `problem` then says why not.
    `identify` asks the endpoint for the name; it is called only where the settings name no model.
    """

    def __init__(self, settings: OpenAISettings, shown: ShownValues, identify: Callable[[], Awaitable[str]]) -> None:
        self._settings = settings
        self._endpoint = shown.show("", settings.base_url or OPENAI_URL)
        self._identify = identify if settings.configured and not settings.model else None
        self.pinned = self._pin(settings.model) if settings.configured and settings.model else None
        self.problem = None if self._identify is None else "it was not asked yet"

    @property
    def is_asked_for(self) -> bool:
        """Return whether the endpoint is asked for the name."""
        return self._identify is not None

    async def refresh(self) -> None:
        """Ask the endpoint for the name, where the settings have none. If it does not say, what is known stays."""
        if self._identify is None:
            return
        try:
            name = await self._identify()
        except ModelError as error:
            log.warning("model_not_identified", endpoint=self._settings.endpoint, reason=str(error))
            self.problem = None if self.pinned else str(error)
        else:
            self.pinned, self.problem = self._pin(name), None

    def _pin(self, name: str) -> PinnedModel:
        return PinnedModel(entry="openai", endpoints=(self._endpoint,), model=name)
