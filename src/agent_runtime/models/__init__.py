"""Language models behind a library: adapters of the `LanguageModel` port.

Importing this package is cheap. The library takes 2 s to import; the first question imports it, in a worker thread.
"""
