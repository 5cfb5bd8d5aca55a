"""The service as an ASGI app, for servers of the operator's choice: `uvicorn agent_runtime.main:app`.

`agent-runtime serve` gives more; docs/how-to/asgi.md lists what.
"""

from agent_runtime.api.asgi import Application

app = Application()
