"""The demo: the whole pipeline on real scanned digits, with stand-ins for the web and for people.

`run`         all stages, one after another, each as its job runs it; `summary` their results
`digits`, `source`   the images, a table of their URLs with the faults of a crawl, gold
`server`      the web that the URLs point to; `teacher` the network
`rounds`      select, send, collect, twice; `annotators` answer in the files of `send`
`simulated_digits`   what `make simulate` runs on
`pretrain`    a tiny Vision Transformer, trained on the machine's labels and on the merged ones
`cluster`, `tether`  a standalone Spark cluster on 127.0.0.1 that ends with its parent
"""
