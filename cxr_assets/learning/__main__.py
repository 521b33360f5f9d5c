"""Training without Dagster: ``python -m cxr_assets.learning -m model.lr=1e-4,3e-4 seed=0,1,2``."""

from cxr_assets.sweep import main

if __name__ == "__main__":
    main()
