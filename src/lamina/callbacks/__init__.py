"""What is measured and kept beside a training: the fusion, the encoder, bad files, the exported encoder."""
