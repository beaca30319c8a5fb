"""The stage `merge`: machine beliefs and human votes to posterior labels. EM itself is in `em`.

read → partition → assemble → iterate → write, as `stage.merge` calls them:

- `settings`: the user's settings become a model and a plan, once; `earlier`: the merge to begin
  from, or to add votes to
- `executor`: where tasks run, Spark or threads; the only module that knows the difference
- `read`: tasks that check votes, gold and beliefs; `partition`: which partition a row goes to;
  `voted_filter`: which images have votes, so that only their beliefs are moved
- `assemble`: the rows of a partition become EM's problems; `belief_table`: beliefs as arrays
- `prepare`: all of the above, in order, kept for a killed run to resume from in `state`
- `iterate`: EM with an E-step whose skills are broadcast (`broadcast`) or sharded (`sharded`, on
  `cell_shards`)
- `write`: posterior rows (`posterior`) of every image; `reports`: the other tables and documents,
  of `workers`, `worker_counts` and `worker_report`; `arrays_file`: arrays that tasks map
"""
