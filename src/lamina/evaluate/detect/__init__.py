"""Detection and instance segmentation: ViTDet's Mask R-CNN on a plain ViT, evaluated by COCO's AP."""
