"""The command `round`: one step of the loop of people and machine, safe to be run from cron.

run        what happens, in order: find where the loop stands, do the next step, say it
standing   where the loop stands, by the manifests of its rounds
steps      the stages of a round, each with its inputs and its output folder
stopping   the three reasons to stop
gain       what an answer is expected to gain
lock       one run at a time
"""
