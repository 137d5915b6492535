"""What reports are made of: folders that evaluations left, words for their figures, pages, comparisons."""
