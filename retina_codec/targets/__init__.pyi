from .base import Sum as Sum
from .base import Target as Target
from .base import Unit as Unit
from .classification import Contrast as Contrast
from .classification import Entropy as Entropy
from .classification import Probability as Probability
from .classification import TopK as TopK
from .surprisal import Surprisal as Surprisal
