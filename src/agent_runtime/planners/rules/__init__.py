"""The grammar of the offline planner, from characters to steps.

`lexer` makes tokens, `clauses` cuts them into instructions, `frames` is the table of sentences that are understood,
`patterns` matches it, `slots`, `names` and `numbers` read what stands in its gaps, `binder` makes `steps` of it, and
`paths` finds the files in it. `vocabulary` holds the words and `meaning` what they may mean. All of it is pure.
"""
