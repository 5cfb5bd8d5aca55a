"""Make text safe to display: `escaping` escapes hidden characters, `redaction` removes secrets.

Every layer may use this package; it uses none.
"""
