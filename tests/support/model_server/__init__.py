"""A scripted model server with the API of OpenAI, which also fails on demand; see `server.ModelServer`."""

from model_server.server import MODEL, ModelServer

__all__ = ["MODEL", "ModelServer"]
