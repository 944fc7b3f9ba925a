import sys
from pathlib import Path

# The brute-force references are plain modules beside their tests.
sys.path.insert(0, str(Path(__file__).parent / "reference"))
