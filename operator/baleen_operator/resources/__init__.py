"""Pure: a resource's body to typed data and back, one file for each kind."""
