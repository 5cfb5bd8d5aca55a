"""Language models behind a library: adapters of the `LanguageModel` port.

Importing this package costs nothing: the library, 2 s of it, is imported in a worker thread by the first question.
"""
