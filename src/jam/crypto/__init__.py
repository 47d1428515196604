"""Encodings, keys, signatures and handles: everything that touches cryptography, and nothing else."""
