"""Trains the small demo model; nothing here is part of the server."""
