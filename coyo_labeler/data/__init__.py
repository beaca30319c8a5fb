"""The training reader: webdataset tars joined with labels, for PyTorch. No Spark, no Java.

from coyo_labeler.data import LabelledImages, Loader, MultiHot

dataset = LabelledImages(images, labels, target=MultiHot(0.05), transform=transform)
for batch in Loader(dataset, batch_size=256, num_workers=8):
    batch = batch.to(device)
    loss = criterion(model(batch.images), batch.targets.dense(num_classes))

- `dataset`: images with their labels; `loader`: batches from worker processes, with exact resume;
  `batch`: pictures and sparse `targets`; `decode`: bytes to a picture.
- `split`: which samples each worker reads; `reader`: these samples in their order.
- `tars`: the shards; `labels`: the labels of a shard, streamed; `by_id`: labels looked up by id;
  `rows`: rows of labels files; `gold`: true classes.
"""

from coyo_labeler import extras

with extras.needed("coyo_labeler.data", "train"):
    from coyo_labeler.data.batch import Batch, SparseTargets, collate
    from coyo_labeler.data.dataset import LabelledImages
    from coyo_labeler.data.gold import Gold, read_gold
    from coyo_labeler.data.loader import Loader
    from coyo_labeler.data.targets import MultiHot, Soft, Top1, Top1Soft

__all__ = [
    "Batch",
    "Gold",
    "LabelledImages",
    "Loader",
    "MultiHot",
    "Soft",
    "SparseTargets",
    "Top1",
    "Top1Soft",
    "collate",
    "read_gold",
]
