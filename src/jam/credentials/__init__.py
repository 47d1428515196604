"""What callers present, one kind a file: how it is made, verified, listed and ended."""
