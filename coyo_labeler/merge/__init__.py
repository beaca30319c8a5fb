"""The stage `merge`: machine beliefs and human votes to posterior labels. EM itself is in `em`.

stage          what happens, in order: read → partition → assemble → iterate → write
settings       the user's settings → a model (what EM computes) and a plan (what is done)
earlier        the merge to begin from (warm start) or to add votes to (increment)
prepare        all that comes before EM, in order; kept in the state
read           tasks that read and check votes, gold and beliefs
voted_filter   which images have votes, so that only their beliefs are moved
assemble       the rows of a partition → EM's problems; `belief_table`: beliefs as arrays
implied        which classes imply which (the tree), and lists that agree with it
iterate        EM from the first state or the last checkpoint until it stops
broadcast      the E-step where skills are sent to every task
sharded        the E-step where skills stay in shards; `cell_shards`: which cells are in which
state          the files that a killed run resumes from; `arrays_file`: arrays that are mapped;
               `checksums` of both
write          the posterior of every image; `posterior`: its rows
reports        all other tables and documents; `workers`, `worker_counts`, `worker_report`
"""
