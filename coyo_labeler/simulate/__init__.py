"""The stage `simulate`: policies of asking, tried on images whose truth is known.

`stage`         what happens, in order: read, simulate, write
`inputs`        features, true classes, images that are known at the start
`crowd`, `crowd_table`   simulated workers, drawn or from a table of confusions
`world`         images, workers and votes of one simulation; who is asked
`choose`        which image is asked about next, and which worker
`methods`       votes to labels: the learner of this package, and the seed paper's methods
`inference`     EM over few classes, dense
`audit`         the estimate of accuracy that needs no truth
`curve`         one simulation from the first round to the last
`work`, `processes`   a policy and a seed to a curve, each in a process
`notes`         what is out of the ordinary about images and workers
`answers`       what the curves say in words
`page`          the curves as an HTML page
"""
