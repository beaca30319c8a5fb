"""The stage `pretrain_vit`: pretraining of a Vision Transformer on labelled images. No Spark.

`stage`        the command line, in one process or under torchrun
`loop`         training: steps, log lines, evaluations, checkpoints, the result
`inputs`       the datasets and loaders that the settings describe
`model`, `augment`, `optimise`   the network, its inputs, and loss, optimiser and schedule
`evaluate`, `metrics`            the network on gold: its own head, a linear probe, fine-tuning
`checkpoint`, `distributed`      exact resumption; the processes that train together
`meter`, `journal`               the figures of a log line, and where they are written
"""
