"""What speaks HTTP. Thin: convert, call a use case, answer. Nothing here decides."""
