"""What several tests share: small models, runs, data and files."""
