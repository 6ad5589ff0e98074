"""What is predicted at the hidden patches."""
