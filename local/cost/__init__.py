"""What a stack costs a month: estimated from what the program registers, a usage profile and a table of prices."""

from local.cost.estimate import Charge, Estimate, estimate
from local.cost.usage import Range, Usage, usage_of

__all__ = ["Charge", "Estimate", "Range", "Usage", "estimate", "usage_of"]
