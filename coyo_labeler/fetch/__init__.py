"""The stage `fetch`: the catalog's URLs to shards of verified images.

- `stage`: which shards are missing, one Spark task for some of them, the counts of all.
- `shard`: the rows of one shard: downloaded, verified, packed, receipt last.
- `client`: HTTP downloads within limits; `urls`: the bytes of a URL that are sent; `encodings`:
  bodies decompressed within limits; `connections`: open files and headers; `hosts`: turns, pace
  and failures of each host.
- `guard`: the addresses that may be connected to; `policy`: robots.txt and X-Robots-Tag.
- `verify`: bytes to a decoded image; `phash`: its perceptual hash; `resize`: optional shrinking.
- `pack`: tar and Parquet file; `generation`: how they get under their names, and retries.
- `status`: the outcomes of a row.
"""
