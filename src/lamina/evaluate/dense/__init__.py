"""What the protocols for segmentation and detection share."""
