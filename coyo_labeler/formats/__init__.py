"""What flows between the stages, read and checked in one way.

- `schemas`: the Arrow schema of every table; `spark_tables`: such tables as DataFrames.
- `image_shards`: the samples of a tar with the table beside it; `image_ids`: the rule for their
  ids; `faults`: why an image cannot be used.
- `tar_digests`: the sha256 of a tar, recorded and compared.
- `tars`: samples in the bytes of a tar; `tar_headers`: its members, with bounds on what headers ask
  for; `side_tables`: the table beside a tar; `single_pictures`: the pictures of a few images.
- `pictures`: image files to pixels; `picture_formats`: those that are opened; `jpeg`: what the
  markers of a JPEG say before that.
- `label_lists`: the labels and probabilities of images; `label_spaces`: the classes that they
  index; `published`: figures from the card of COYO-Labeled-300M.
- `embeddings`: the features of images.
- `wordnet`: the synsets of ImageNet's classes and those above; `label_tree`: the tree that they
  form; `tree_labels`: lists of labels rolled up along it.
- `columns`: a column cast to its type; `class_names`: labels by number or name; `pairs`: gold and
  slices; `collected`: votes with their questions; `state_dicts`: the names in checkpoints.
- `parquet_splits`: the row groups that one task reads; `csv_files`: columns of CSV as text.
"""
