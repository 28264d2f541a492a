from .digits import digit_scenes as digit_scenes
from .folders import CenterCrop as CenterCrop
from .folders import FileSettings as FileSettings
from .folders import open_images as open_images
from .hierarchy import open_hierarchy as open_hierarchy
