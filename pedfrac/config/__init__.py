"""Typed settings: frozen pydantic models, validated wherever they come from."""
