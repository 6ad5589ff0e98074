"""Semantic segmentation: heads on the maps of a plain ViT, evaluated by the data set's mIoU."""
