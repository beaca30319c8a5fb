"""The stage `learn`: features and posteriors to a linear softmax, and to its beliefs of all images.

`stage`         what happens, in order: read, train, judge, score
`training_set`  the posteriors to learn from, and their features, in memory
`train`         one softmax of all training images, and one per fold that has not seen the fold
`softmax`       the loss and its optimum by L-BFGS; temperature
`minibatch`     the same for many classes: PyTorch's Adam on sparse targets
`features`      lengths, principal components
`out_of_fold`   folds and samples by hash, cross-fitted learners in memory
`pool`          a teacher's and a learner's belief as one, with weights that held-out images decide
`evidence`      what the votes on held-out images say of their classes
`judge`         whether the learner is believed beside the teacher
`teacher`       the teacher's beliefs of given images
`model`         the learner of a run as a file of weights
`score`, `top_k`   a file of features to a file of beliefs
`on_spark`      scoring on executors
"""
