"""One module for each group of `kubectl baleen` commands, and what they decide as plain functions beside them.

`adding`, `facts`, `overrides` and `words` call nothing and know no clock; the others read options, call, and print.
"""
