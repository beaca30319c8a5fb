"""Spark pipeline: web images to ImageNet-21k beliefs, merged with a few human votes."""
