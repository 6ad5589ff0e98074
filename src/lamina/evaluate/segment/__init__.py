"""Semantic segmentation: heads on the maps of a plain ViT, judged by the data set's mIoU."""
