"""Images within other files: shards of tar, read by position."""
