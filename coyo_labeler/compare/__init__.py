"""The stage `compare`: two annotations of the same images, side by side.

`stage`       what happens, in order: read, pair, compare, describe, draw, write
`coco_files`  files found, put together and sorted by image; `records` one record read and checked;
              `rejects` what was left out, by reason and by name
`pairing`     images by file name, classes by name
`batch`       images in batches, on several processes
`image_pair`  one image: objects read, matched, described as columns
`masks`, `match`   masks and their overlap, by hotcoco; one-to-one matches, splits, crowds
`tables`, `document`   columns to tables, and all of them as one JSON document
`draw`        the images that differ most, with the objects of both sets
`summary`     the document as lines of text
`page`, `figures`   the document as an HTML page (`pages`) with SVG plots
"""
