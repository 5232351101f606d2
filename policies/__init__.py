"""Rules over the resources of a stack, and the pack that lets the Pulumi engine ask them; imports nothing of ours."""
