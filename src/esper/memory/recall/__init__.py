"""How what is known is found again: words, rank, budget and advice. Knows stores by their Protocol only."""
