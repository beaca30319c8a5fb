"""The stage `export`: a labels folder copied for its consumers, in one of four formats.

`stage`       what happens, in order: find the labels, plan, write, account
`plan`        which rows of which labels files make up each exported file
`roll_up`     lists of labels through the tree above their classes
`choose`      which labels of an image are kept, which images, and why others are not
`on_spark`    shards spread over Spark; for images, the labels joined to the tar that holds them
`job`         what a task does with one shard: its file, its rejects, its receipt
`parquet`, `images`, `tars`, `tfrecord`   one shard in each format
`statistics`, `provenance`, `card`, `markdown`   the dataset card of a Hugging Face folder
"""
