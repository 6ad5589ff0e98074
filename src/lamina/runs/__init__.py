"""Runs on disk: how a folder is started, resumed and read."""
