"""Images within other files: members of tar and zip archives, read by their place."""
