"""`make label-studio-check`: send and collect against a real Label Studio, on 127.0.0.1.

It is no test of the suite: Label Studio is a gigabyte that only this check needs.
"""
