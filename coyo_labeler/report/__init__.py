"""The stage `report`: any labels folder to statistics, accuracy against gold and one HTML page.

`stage`      what happens, in order: read, aggregate, describe, write
`queries`    what Spark reads and joins, and the one pass over the rows
`tally`      the counts of a batch of rows, kept in `sums`; `ragged` reads its list columns
`aggregate`  counts of parts of the data to counts of all of it, cut to what the report shows
`metrics`, `ranking`   rates with intervals, scores per class, calibration, average precision
`tree_tally`, `tree_section`   what the tree above the classes adds: counts, and their section
`asked`, `judged`   what Spark reads for the audit: votes, and the labels of their images
`audit`, `crowd`    the audit's section: the estimated accuracy (package `audit`), who answered
`audit_figures`     its plots
`provenance`, `workers`, `examples`   what other stages left: counts, EM's history, workers, images
`document`   all of it as one JSON document, from which everything below is drawn; `paths` in it
`summary`    the document as a few lines of text
`page`, `figures`   the document as an HTML page (`pages`) with SVG plots (`coyo_labeler.plots`)
"""
