"""The stage `ingest`: source rows to the catalog of images to fetch.

- `stage`: the order of the work: find images, near twins, cuts of shards, catalog.
- `read`: the source's files, their columns and their damage; `columns`: names inside the stage;
  `types`: as what Spark reads them.
- `filters`: the rules for a single row, with the `reasons` of rejects.
- `images`: one row per image, by exact hash.
- `near`: pairs of hashes within a few bits, in Numba; `components`: the same on Spark, in groups.
- `shards`: sample, shard and part of a row, by hashes of its content.
- `part`: writes one part of the catalog; `twins`: groups of equal hashes in it; `text`: strings
  that are no UTF-8.
- `phash`: hashes as numbers and as text; `statistics`: histograms of the catalog.
"""
