"""One module for each group of `kubectl baleen` commands, and what they decide as plain functions beside them.

`facts`, `overrides` and `words` call nothing and know no clock; the others read their options, call, and print.
"""
