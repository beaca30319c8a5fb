"""What a run of the pipeline takes, before it is started.

unit_costs   core microseconds, bytes and rates per row, and their file
calibrate    measures the unit costs on this machine
samples      the generated inputs that are measured on
estimate     from unit costs and sizes to hours, terabytes and money, stage by stage
run          the command: measure or read, estimate, write, say
"""
