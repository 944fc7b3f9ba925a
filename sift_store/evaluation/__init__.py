"""Retrieval quality, measured on labelled sets: `sift-store eval` and its parts. Needs the "eval" extra."""

from sift_store.evaluation.datasets import Dataset, read_dataset
from sift_store.evaluation.harness import Cell, evaluate, read_cells
from sift_store.evaluation.intervals import Difference, paired_difference
from sift_store.evaluation.methods import BASELINE, DEFAULT, Choice, all_methods
from sift_store.evaluation.metrics import CUTOFFS, Judge, redundancy
from sift_store.evaluation.scenarios import SCENARIOS, make_corpus
from sift_store.evaluation.vectors import VectorCache

__all__ = [
    "BASELINE",
    "CUTOFFS",
    "DEFAULT",
    "SCENARIOS",
    "Cell",
    "Choice",
    "Dataset",
    "Difference",
    "Judge",
    "VectorCache",
    "all_methods",
    "evaluate",
    "make_corpus",
    "paired_difference",
    "read_cells",
    "read_dataset",
    "redundancy",
]
