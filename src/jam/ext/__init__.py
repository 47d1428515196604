"""Jam in other frameworks, one package each."""
