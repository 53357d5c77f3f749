"""What we know and decide: pure values and functions. Nothing here waits, reads a clock or opens a file.

Read in this order: alert, target, rule, filter, plan, incident, evidence, finding, retention.
"""
