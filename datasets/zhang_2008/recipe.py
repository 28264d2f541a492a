"""Check your copies of the mouse recordings of crcns.org ret-1; nothing is downloaded.

python datasets/zhang_2008/recipe.py --folder FOLDER --open
"""

import sys
from pathlib import Path

from retina_codec.paper.recipe import run_recipe

ADDRESS = "https://crcns.org/data-sets/retina/ret-1, or github.com/eqian99/neural_analysis (Data/)"

if __name__ == "__main__":
    sys.exit(run_recipe(Path(__file__).with_name("card.md"), ADDRESS))
