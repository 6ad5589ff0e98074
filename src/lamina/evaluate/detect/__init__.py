"""Detection and instance segmentation: ViTDet's Mask R-CNN on a plain ViT, judged by COCO's AP."""
