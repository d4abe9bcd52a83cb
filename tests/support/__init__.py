"""Helpers that several tests share; import them as ``support.<module>``."""
