"""hemagrid's library: plain Python that trains and compares classifiers of blood cells.

Nothing here knows Snakemake. One module per question a reader asks: `duplicates`,
`splits`, `augmentation`, `backbones`, `training`, `evaluation`, `tables`, `report`.
"""
