"""llama.cpp's own HTTP server, as the package `xllamacpp` carries it.

Arguments: the file of the model, the port, the tokens of context, and the API key, which may be empty.
"""

import importlib
import signal
import sys


def main() -> None:
    """Serve until a signal ends the process."""
    xllamacpp = importlib.import_module("xllamacpp")
    model, port, context, key = sys.argv[1:]
    options = xllamacpp.CommonParams()
    options.model.path = model
    options.model_alias = {"local"}
    options.port = int(port)
    options.n_ctx = int(context)
    options.n_parallel = 1
    options.cpuparams.n_threads = 1
    options.cpuparams_batch.n_threads = 1
    if key:
        options.api_keys = [key]
    server = xllamacpp.Server(options)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
