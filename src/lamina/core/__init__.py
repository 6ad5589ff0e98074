"""What every package uses: values, files, random numbers, messages."""
