"""The grammar of the offline planner, from characters to steps.

`lexer` makes tokens, `clauses` cuts them into instructions, `frames` is the table of known sentences, `patterns`
matches it, `slots`, `names` and `numbers` read the gaps in it, `binder` makes `steps` of the result, and `paths` finds
the files in it. `vocabulary` holds the words and `meaning` what they can mean. All of it is pure.
"""
