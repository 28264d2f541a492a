from .base import Method as Method
from .gradients import ActGrad as ActGrad
from .gradients import ActNormGrad as ActNormGrad
from .gradients import InputGrad as InputGrad
from .gradients import SmoothGrad as SmoothGrad
from .integrated_gradients import IntegratedGradients as IntegratedGradients
