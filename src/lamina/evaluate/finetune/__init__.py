"""The protocols that train a classifier: fine-tuning, MAE's linear probe and the attentive probe."""
