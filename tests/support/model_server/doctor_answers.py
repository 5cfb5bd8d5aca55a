"""The answers that a model gives the doctor."""

from model_server.replies import Calls, Reply, Text
from model_server.server import ModelServer

WORD = Text('{"word": "zarf"}')
"""The answer of a model that is held to the schema of the first question."""

OK = Text("ok")
CALL = Calls([("read_thermometer", {"room": "kitchen"})])


def answer_doctor(models: ModelServer, *, word: Reply = WORD, call: Reply = CALL, prompt: Reply = OK) -> None:
    """Have the model answer each of the doctor's questions, by default as the service needs it."""
    models.on("Answer with the JSON object", word)
    models.on("How warm is it in the kitchen?", call)
    models.on("This only tests how much you can read.", prompt)
