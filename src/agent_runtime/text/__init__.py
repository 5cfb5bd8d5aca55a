"""Text as it may be shown: `escaping` spells out what hides, `redaction` takes secrets out.

Every layer may use it; it uses none.
"""
