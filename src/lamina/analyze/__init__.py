"""MonitorPlan inside a Vision Transformer: frequencies, curvature, attention, similarity, rank."""
