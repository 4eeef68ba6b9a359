"""The second opinion: the paper's own procedure by autograd. Shares no code with the graph."""
