"""Settings: one module per stage; their descriptions are the one place that says what a key means.

base: what all settings share. ingest, fetch, label, merge, select, learn, simulate, report,
compare, export, send, collect, pretrain_vit, plan, demo, round: the keys of each. read: defaults,
YAML file and `key=value` words, checked once. words: the value that a word gives. yaml_values:
bounded YAML. explain: what is wrong, on one line. describe: the text of --help and of
conf/<stage>.yaml.
"""
