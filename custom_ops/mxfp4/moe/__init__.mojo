"""Routing of tokens to experts and back: `route` picks experts, `group` sorts rows by expert, `combine` sums them."""
