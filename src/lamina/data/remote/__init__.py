"""Files at a remote (s3://, gs://, https://, hf://, ...), read by fsspec."""
