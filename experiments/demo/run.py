"""In: this checkout. Out: what ``make demo`` prints, and what is kept of its run, in this folder.

Run as ``python -m experiments.demo.run``, on a quiet machine where the clock shall count.
"""

import subprocess
from pathlib import Path

from experiments.record import collect

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

if __name__ == "__main__":
    said = subprocess.run(
        ["make", "demo", "ARGS=progress=false"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    collect(ROOT / "outputs" / "demo", HERE)
    (HERE / "output.txt").write_text(said.stdout, encoding="utf-8")
