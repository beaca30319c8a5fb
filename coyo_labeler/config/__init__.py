"""The settings of every stage: one module a stage, read and checked once by `config.read`."""
