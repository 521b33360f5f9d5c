"""What runs on a Ray cluster; the one package that knows Ray."""
