"""Check your copy of the salamander recording of Liu et al. 2017; nothing is downloaded.

python datasets/liu_2017/recipe.py --folder FOLDER --open
"""

import sys
from pathlib import Path

from retina_codec.paper.recipe import run_recipe

ADDRESS = "https://github.com/megyoung430/rgc-subunit-classifier (data/)"

if __name__ == "__main__":
    sys.exit(run_recipe(Path(__file__).with_name("card.md"), ADDRESS))
