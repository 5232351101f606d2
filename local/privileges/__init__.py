"""Least privilege, proven: what each role was seen to do, against what its policy allows."""
