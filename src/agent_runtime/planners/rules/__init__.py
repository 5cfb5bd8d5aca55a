"""The grammar of the offline planner, from characters to steps.

`lexer` makes tokens, `clauses` cuts them into instructions, `frames` is the table of sentences that are understood,
`patterns` matches it, `slots`, `names` and `numbers` read what stands in its gaps, and `binder` makes steps of it.
`vocabulary` holds the words and `meaning` what they may mean. All of it is pure.
"""
