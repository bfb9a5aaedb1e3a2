"""The shipped models on this machine: fetch, verify, convert, train the text heads, and find the files again."""
