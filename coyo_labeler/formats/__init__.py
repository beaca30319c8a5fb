"""What flows between stages, read one way by all of them. No stage is imported here.

schemas         the Arrow schema of every table
columns         a column of a file in the type of its schema, or an error that names the bad value
parquet_splits  which row groups of which Parquet file one task reads, and how it reads them
label_lists     labels and probabilities of images as flat arrays, and the one check of them
spark_tables    tables as Spark DataFrames
image_shards    the samples of an image shard: `tars` and `tar_headers` read its tar, `side_tables`
                the table beside it, `image_ids` says which id an image has
pictures        image files → RGB pixels; `jpeg`: JPEG files by their markers
faults          why an image cannot be used
label_spaces    the classes that labels index: how many, their names and synsets
published       what the dataset card of COYO-Labeled-300M says, to compare a copy with
"""
