"""Misbehaving on purpose."""
