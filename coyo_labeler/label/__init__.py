"""The stage `label`: image shards to a teacher's most probable classes. No Spark is needed.

- `stage`: the order of the work; `shards`: which tars there are.
- `on_spark` and `local`: the engines; `commit`: what both do with a shard.
- `ahead`: samples read and decoded before the device asks for them; `preprocess`: pictures to
  tensors; `resize`: all pictures of a batch at once, on a GPU.
- `predict`: shards through a teacher; `devices`: batches on a CPU or a GPU.
- `spec`: which teacher is meant; `model`: the teacher; `weights`: its checkpoint; `head`: its
  outputs in a label space's order.
"""
