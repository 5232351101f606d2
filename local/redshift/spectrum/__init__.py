"""Stands in for Spectrum: tables of the Glue catalogue, queried as the tables of an external schema.

A PostgreSQL table of the same name holds the rows as they were last read. Before a statement that reads it gets to
PostgreSQL, the gateway compares Glue and S3 with what was loaded, and loads anew what changed (lake.py). The external
schema's role reads both, and the emulator evaluates its policies.
"""
