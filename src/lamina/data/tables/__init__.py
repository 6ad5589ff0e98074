"""Tables of images: CSV and parquet, with paths or the images themselves, labels and parts in columns."""
