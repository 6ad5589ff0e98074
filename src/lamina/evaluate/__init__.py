"""What a pre-trained encoder is worth: protocols that train from it or test what was trained."""
