"""The infilling report: likelihoods of held-out spans in many orders, and losses by groups."""
