"""The service under load, under hot swaps and under attack; each module runs alone."""
