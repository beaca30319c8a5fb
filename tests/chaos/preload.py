"""Imports what the stages import, once: the processes that are killed are forked from this one."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

import pyspark.sql
import timm
import torch

import coyo_labeler.cli
import coyo_labeler.export.stage
import coyo_labeler.fetch.stage
import coyo_labeler.ingest.stage
import coyo_labeler.label.local
import coyo_labeler.label.predict
import coyo_labeler.label.stage
import coyo_labeler.merge.stage
import coyo_labeler.pretrain.loop
import coyo_labeler.receipt_bundles
import coyo_labeler.report.stage

torch.set_num_threads(1)
coyo_labeler.receipt_bundles.FEWEST = 1  # a handful of shards have bundles too

__all__ = ["coyo_labeler", "pyspark", "timm"]
