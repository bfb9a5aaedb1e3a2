"""One module for each group of routes. A route converts, calls a use case and answers; it has no `if`."""
