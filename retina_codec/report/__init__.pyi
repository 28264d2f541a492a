from .layers import layer_table as layer_table
from .nwb.export import open_results_from_nwb as open_results_from_nwb
from .nwb.export import save_results_to_nwb as save_results_to_nwb
from .page.numbers import numbers_of as numbers_of
from .page.page import write_report as write_report
