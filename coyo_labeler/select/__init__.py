"""The stage `select`: which images people are asked about, and with what probability.

stage        what happens, in order: index → cut → gather → finish
plan         the user's settings → what the tasks need to know
index        of every image that may be asked about what the choice goes by, in partitions
answers      votes of earlier rounds: how many an image has, and whether they disagree
twins        near twins, of which one is asked about
score        risk, entropy and margin from lists of probabilities; the class to verify; order keys
hashes       what is drawn: numbers for images, by stream, seed and round
choose       how many of which purpose; who is chosen, and the inclusion probability
cut          the nth smallest of scattered keys, by histograms
class_cuts   the most wanted images of each class
rows         a partition of the index in memory
passes       the passes over the index that find the cuts
gather       chosen rows of the labels → questions in files
nodes        nodes of the tree that are asked about
ask          the columns of a question, from a list of classes
finish       keys of tars, gold's classes and workers for the questions
workers      who can be asked, and how accurate each is; `assign`: who is asked
summary      what was chosen, in the manifest and in sentences
"""
