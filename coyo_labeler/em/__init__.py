"""The model, and EM for it, on NumPy arrays alone: no storage, no tables, no engine.

Votes and machine beliefs go in; posteriors of images and skills of workers come out.

    inputs       Votes, Beliefs, Gold as arrays; beliefs are checked
    responses    what a vote can say
    model        the model's choices; its parameters
    build        votes and beliefs → problems
    candidates   the classes of an image that become states of their own
    problems     problems as flat arrays
    sets         questions about sets of classes: what they cannot tell apart
    build_sets   what answers to them add to the problems
    cells        the numbers that describe all workers' skill, and their keys
    loop         EM: start, E-step, M-step, test of convergence
    e_step       posteriors and sums of one partition
    infer        the posterior of one partition, answers about sets apart
    joint        questions that such answers tie together (`truth: multi`)
    hierarchy    classes that imply those above them (`truth: multi`)
    bayes        Bayes' rule over flat problems
    passes       the compiled loops over votes and over cells
    threads      ranges of an array, worked on side by side
    partitions   the E-step over all partitions, in memory or wherever they lie
    sums         what the E-step adds up
    exact_sum    sums that do not depend on their order
    priors       the prior of each problem, from beliefs or class prior
    tails        classes of a belief that are no states: their mass at any temperature
    skill        M-step: expected counts → θ
    class_prior  M-step: how frequent classes are
    calibration  M-step: the map of beliefs; how reliable they are
    curve        a calibration that depends on the machine's confidence
    class_bias   M-step: what the map of beliefs adds for each class
    coverage     which images people were asked about; weights that make up for it
    tallies      counts of votes by worker, before any EM
    choices      how probable a wrong choice is, by what was offered and by the machine
    model_choice what `auto` leaves to votes that are held out
    held_out     the tenths of images that it holds out, and what their votes can tell
    segments     operations on segments of flat arrays

Terms:

    vote          a choice (the class is z) or a verification (is it c? yes, no or unsure)
    belief        the machine's probabilities of some classes of an image
    gold          the true class, given
    problem       the inference of one image; in `truth: multi`, of one class of one image
    support       the classes of a belief and of votes; all others are one lumped state
    entry         one state of a problem: a class of the support, or the lumped state
    pair          a vote with an entry of its problem
    cell          (class, worker, answer): a vote and an entry fall into one
    skill, θ      the probability of each cell's answer, given class and worker
    row           the cells of one class and worker; their θ sum to one
    pool          all workers together, towards whom each worker is shrunk
    prior         probabilities of the entries of a problem before its votes
    posterior     and after them
    objective     log-likelihood + log prior of the skills; EM raises it
    checkpoint    where skills are kept that are too many for one machine

Papers: Dawid & Skene, Applied Statistics 28, 1979 (the model); Raykar et al., JMLR 11, 2010 (with a
classifier); Branson, Van Horn & Perona, CVPR 2017, and Liao, Kar & Fidler, CVPR 2021 (machine
beliefs as priors, shrunk skills); Platt 1999 and Guo et al., ICML 2017 (calibration); Neal &
Hinton 1998 (incremental EM).
"""
