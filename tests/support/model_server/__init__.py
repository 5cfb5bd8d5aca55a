"""A model behind the wire of OpenAI that says what a script tells it, and fails on demand; see `server.ModelServer`."""

from model_server.server import MODEL, ModelServer

__all__ = ["MODEL", "ModelServer"]
