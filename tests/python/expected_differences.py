"""Where remuda's answers differ from the stock controller's on purpose: a pattern on `step: path: stock -> ours`, and why.

Patterns are tried in order; a difference belongs to the first that matches it.
"""

EXPECTED = []
