"""The policy pack: `pulumi preview --policy-pack policies`."""

from __future__ import annotations

import sys
from pathlib import Path

from pulumi_policy import PolicyPack

# The engine starts this folder as a program; its modules are found by way of the project's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.pack import policies

PolicyPack(name="goldlake", policies=policies())
