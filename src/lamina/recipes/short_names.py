"""Short names of the options that are given most often, on the command line and from Python."""

SHORT_NAMES = {
    "encoder": "encoder.name",
    "image_size": "encoder.image_size",
    "patch_size": "encoder.patch_size",
    "in_chans": "encoder.in_chans",
    "mean": "encoder.mean",
    "std": "encoder.std",
    "fusion": "fusion.kind",
    "mask_ratio": "masking.mask_ratio",
    "epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "batch_size": "train.batch_size",
    "base_lr": "optim.base_lr",
    "workers": "data.workers",
    "device": "train.device",
    "precision": "train.precision",
    "seed": "train.seed",
    "checkpoint_every_steps": "train.checkpoint_every_steps",
}
"""The short name of an option, and the field of the recipe that it sets."""
