"""Pretraining of a Vision Transformer on what the pipeline made. No Spark."""
